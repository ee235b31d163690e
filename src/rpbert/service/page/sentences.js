// What a result says, in plain words.

const NOTICED = 0.05; // a change of a score that is worth a word

export const percent = (share) => `${Math.round(100 * share)}\u00a0%`;
export const quoted = (text) => `“${text}”`;

export function sayNames(entities) {
  const names = entities.map((e) => `${e.text} (${e.label}, ${percent(e.score)})`);
  const count = `${names.length} ${names.length === 1 ? "name" : "names"}`;
  return names.length ? `${count}: ${names.join(", ")}` : "Nothing is named here.";
}

// Whether the image adds, of a result of a model.
export function sayRelation({ prediction: { relation, image }, image_reason }, model) {
  if (image === "unreadable") {
    return `The image could not be read, so the text was read alone: ${image_reason}.`;
  }
  if (!model?.reads_images) return "This model does not look at images.";
  if (image !== "used") return "There is no image: the text was read alone.";
  if (relation === null) return "This model has not learnt whether images add to the text.";
  const share = `${percent(relation)} of it was let through`;
  if (relation >= 0.75) return `Yes, the image adds to what the text says: ${share}.`;
  if (relation > 0.25) return `Perhaps the image adds to what the text says: ${share}.`;
  return `No, the image has little to do with the text: only ${share}.`;
}

// What the image changes: the names seen with it against those without.
export function sayDifference(seen, blind) {
  const same = (a) => (b) => a.start === b.start && a.end === b.end;
  const found = seen.map((entity) => {
    const other = blind.find(same(entity));
    if (!other) return `finds ${quoted(entity.text)}`;
    const surer = entity.score - other.score;
    if (other.label === entity.label) {
      if (Math.abs(surer) < NOTICED) return "";
      return `makes ${quoted(entity.text)} ${surer > 0 ? "surer" : "less sure"}`;
    }
    return `turns ${quoted(entity.text)} from ${other.label} to ${entity.label}`;
  });
  const lost = blind.filter((entity) => !seen.some(same(entity)));
  const said = [...found.filter(Boolean), ...lost.map((entity) => `drops ${quoted(entity.text)}`)];
  return said.length ? `The image ${said.join(", ")}.` : "The image changes no name here.";
}
