// The OpenAPI document as a page; all of it is put in as text.

function node(tag, content = [], attributes = {}) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...[content].flat());
  return made;
}

function named(schema) {
  if (!schema) return '';
  if (schema.$ref) {
    const name = schema.$ref.split('/').pop();
    return node('a', name, {href: `#${name}`});
  }
  if (schema.anyOf) return node('span', schema.anyOf.flatMap((one, i) => [i ? ' or ' : '', named(one)]));
  if (schema.enum) return schema.enum.join(' or ');
  if (schema.type === 'array') return node('span', ['list of ', named(schema.items)]);
  if (schema.format === 'binary') return 'file';
  return schema.title && schema.properties ? schema.title : String(schema.type ?? 'anything');
}

function table(rows) {
  const body = rows.map(cells => node('tr', cells.map((cell, i) => node(i ? 'td' : 'th', cell))));
  return node('div', node('table', body), {className: 'wide', tabIndex: 0});
}

function properties(schema) {
  const object = schema.properties ? schema : (schema.anyOf ?? []).find(one => one.properties);
  return table(Object.entries(object?.properties ?? {}).map(([name, value]) => [
    [node('code', name), object.required?.includes(name) ? '' : node('small', ' optional')],
    named(value), value.description ?? '']));
}

function operation(method, path, {description, summary, requestBody, responses}) {
  const takes = Object.entries(requestBody?.content ?? {}).flatMap(([media, {schema}]) =>
    [node('h3', ['Takes ', node('code', media)]), node('p', named(schema)), properties(schema)]);
  const answers = Object.entries(responses).map(([status, answer]) =>
    [status, answer.description, named(Object.values(answer.content ?? {})[0]?.schema)]);
  return node('section', [
    node('h2', [node('span', method.toUpperCase()), ' ', node('code', path)]),
    node('p', description ?? summary), ...takes, node('h3', 'Answers'), table(answers)]);
}

const found = await (await fetch('/openapi.json')).json();
document.querySelector('#version').append(found.info.version);
for (const [path, methods] of Object.entries(found.paths)) {
  for (const [method, one] of Object.entries(methods)) {
    document.querySelector('#operations').append(operation(method, path, one));
  }
}
for (const [name, schema] of Object.entries(found.components.schemas)) {
  document.querySelector('#types').append(node('section', [
    node('h3', name), node('p', schema.description ?? ''), properties(schema)], {id: name}));
}
