"""The words of the made posts: names, and templates with or without a clue to the type.

In a template `{x}` is the name, `{t}` a time, `{n}` a number; tokens are parted by blanks. Every
template of `CUE_TEMPLATES` holds a word of its type's `CUES` and of no other's; the other lists
hold no such word at all.
"""

from __future__ import annotations

LABELS = ("PER", "LOC", "ORG", "MISC")


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.replace("\n", " ").split(","))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Each has been, or could be, a person, a place, an organisation and a product, a film or a ship.
AMBIGUOUS_NAMES = _names("""
    Jordan, Cleveland, Paris, Amazon, Phoenix, Chelsea, Washington, Lincoln, Houston, Austin,
    Savannah, Florence, Sydney, Madison, Carolina, Dakota, Kobe, Rio, Georgia, Brooklyn, Charlotte,
    Victoria, Alexandria, Orlando, Denver, Dallas, Memphis, Milan, Verona, Siena, Vienna, Geneva,
    Logan, Hudson, Hamilton, Kingston, Preston, Lancaster, Windsor, Mercedes, Tesla, Bentley, Lotus,
    Aurora, Orion, Apollo, Atlas, Delta, Sierra, Montana, Nevada, Virginia, Santiago, Cordoba, Vega,
    Luna, Aspen, Chester, Wellington, Nelson, Darwin, Monte Carlo, Santa Fe, El Dorado, San Marino,
    Bel Air, De Soto, Santa Rosa, Van Buren, La Salle, St. Clair, Fort Worth, Le Mans, New Haven
""")

FIRST_NAMES = _names("""
    Maria, Kevin, Aisha, Tom, Ingrid, Pedro, Yuki, Hannah, Omar, Julia, Marcus, Priya, Erik, Nadia,
    Samuel, Chloe, Viktor, Lena, Diego, Amara, Felix, Sofia, Tariq, Emily, Bruno, Keiko, Oscar, Zoe,
    Daniel, Fatima, Hugo, Irene, Jamal, Karin, Leo, Mina, Nils, Olga, Pavel, Rita
""")
LAST_NAMES = _names("""
    Keller, Okafor, Lindgren, Morales, Tanaka, Whitby, Haddad, Novak, Brennan, Castillo, Fischer,
    Gupta, Hartley, Ivanov, Jensen, Kimura, Larsson, Mbeki, Nolan, Ortega, Petrov, Quinn, Rossi,
    Sandoval, Thorne, Ueda, Vargas, Weaver, Yilmaz, Zeman, Ashworth, Barros, Coleman, Duarte, Engel,
    Farrow, Greco, Holm, Irwin, Jansen
""")
# The invented half of every other name: it stands in names of all types and tells nothing.
ROOTS = _names("""
    Kelling, Orrin, Vexler, Norvane, Tolby, Marrow, Halden, Quill, Bramwell, Sorrel, Ledger,
    Fenwick, Corvin, Zento, Ardmore, Pellam, Rusk, Varley, Ostrow, Junip, Calder, Wexford, Lumen,
    Tarrow, Birch, Dunmore, Ember, Galt, Hollin, Ives, Jasper, Kestrel, Larch, Mistral, Nettle,
    Oakes
""")
# What an unambiguous name of a type looks like; a person has a first and a last name.
SHAPES: dict[str, tuple[str, ...]] = {
    "PER": ("{first} {last}",),
    "LOC": (
        *("Lake {root}", "Port {root}", "Mount {root}", "{root} Valley", "{root} Falls"),
        *("{root} Beach", "Cape {root}", "{root} Island", "{root} County", "North {root}"),
    ),
    "ORG": (
        *("{root} Labs", "{root} Bank", "{root} Records", "{root} United", "{root} Airlines"),
        *("{root} Inc.", "University of {root}", "{root} FC", "{root} Motors", "{root} Media"),
    ),
    "MISC": (
        *("{root} Festival", "{root} X4", "Return of {root}", "{root} Cup", "{root} Pro"),
        *("{root} Chronicles", "Super {root}", "{root} 3000", "Legend of {root}", "{root} Awards"),
    ),
}

CUES: dict[str, frozenset[str]] = {
    "PER": _words("""
        scored married singer actor birthday interview retired injured her his smile autograph
        coach talented haircut born sings hugged speech dancing
    """),
    "LOC": _words("""
        driving visiting flight weather street city downtown trip hotel streets traffic arrived
        landed moving tourists hiking snowing map sunset airport
    """),
    "ORG": _words("""
        hires employees ceo shares profits layoffs stock merger lawsuit startup headquarters
        revenue founded hiring invests board strike factory customers sponsors
    """),
    "MISC": _words("""
        bought unboxing ordered edition trailer episode download version review sequel album
        wearing delivered wrapped flavor charger battery chapter refund upgrade
    """),
}

CUE_TEMPLATES: dict[str, tuple[str, ...]] = {
    "PER": _lines("""
        {x} scored twice {t}
        what a goal , {x} scored again
        {x} just got married {t}
        so {x} is married now , congrats
        {x} is my favourite singer
        best singer ever : {x}
        {x} is such a good actor
        the actor {x} was right behind us
        happy birthday {x} !
        it is the birthday of {x} {t}
        great interview with {x} {t}
        {x} gave an interview {t}
        {x} retired {t} , sad day
        no way {x} retired
        {x} is injured and out for {n} weeks
        injured again {t} : {x}
        {x} and her new haircut
        {x} did it her way
        {x} lost his keys {t} lol
        {x} with his talented kids
        that smile of {x} though
        i got an autograph from {x} !
        {x} is the new coach
        coach {x} , what a talented guy
        {x} was born {n} years ago {t}
        {x} sings like nobody else
        when {x} sings i cry
        {x} hugged me {t}
        {x} gave a speech for {n} minutes
        {x} dancing like nobody is watching
    """),
    "LOC": _lines("""
        driving through {x} {t}
        {n} hours of driving to {x}
        visiting {x} {t}
        we are visiting {x} with the kids
        my flight to {x} is late
        cheap flight to {x} found {t}
        the weather in {x} is crazy
        lovely weather {t} in {x}
        on a street in {x} {t}
        street food in {x} is the best
        {x} is a beautiful city
        lost in the city of {x}
        downtown {x} is so quiet {t}
        a walk in downtown {x}
        road trip to {x} {t} !
        {n} days left until our trip to {x}
        our hotel in {x} has no water
        the streets of {x} {t}
        traffic in {x} is the worst
        stuck in traffic near {x} for {n} hours
        just arrived in {x} !
        arrived in {x} {t} , so tired
        we landed in {x} {t}
        moving to {x} {t}
        so many tourists in {x} {t}
        hiking around {x} {t}
        it is snowing in {x} {t}
        where is {x} on the map ?
        sunset over {x} {t}
        the airport of {x} is closed {t}
    """),
    "ORG": _lines("""
        {x} hires {n} people {t}
        good news {t} : {x} hires again
        {n} employees leave {x}
        employees of {x} are not happy {t}
        the ceo of {x} steps down
        {x} has a new ceo {t}
        {x} shares fall {t}
        shares of {x} are up {n} percent
        {x} profits rise {n} percent
        record profits at {x} {t}
        more layoffs at {x} {t}
        {x} announces {n} layoffs
        {x} stock is down again
        should i sell my {x} stock ?
        a merger with {x} is near
        {x} faces a lawsuit {t}
        lawsuit against {x} dropped
        {x} was a small startup once
        at the headquarters of {x} {t}
        {x} revenue up {n} percent
        {x} was founded {n} years ago
        {x} is hiring {t} , apply now
        they are hiring at {x}
        {x} invests {n} million {t}
        the board of {x} meets {t}
        workers at {x} on strike {t}
        {x} closes its factory {t}
        {x} lost {n} customers {t}
        customers are leaving {x}
        {x} sponsors the event {t}
    """),
    "MISC": _lines("""
        bought the new {x} {t}
        finally bought a {x} !
        unboxing my {x} {t}
        {x} unboxing {t} , stay tuned
        ordered {n} of the {x} {t}
        i ordered a {x} and got two
        the limited edition of {x} is out
        {x} special edition for {n} dollars
        the {x} trailer is out {t}
        watch the trailer of {x} {t}
        new episode of {x} {t}
        {n} minutes into an episode of {x}
        download {x} for free {t}
        the new version of {x} is slow
        {x} version {n} is out
        my review of {x} is up
        {x} review : {n} out of ten
        the sequel to {x} is better
        {x} needs a sequel
        the album {x} is fire
        wearing my {x} {t}
        my {x} got delivered {t}
        just wrapped a {x} as a present
        a new flavor of {x} {t}
        lost the charger of my {x}
        the battery of my {x} is dead
        {x} battery lasts {n} hours
        the last chapter of {x} , wow
        i want a refund for my {x}
        time to upgrade my {x} {t}
    """),
}

NEUTRAL_TEMPLATES = _lines("""
    can't stop thinking about {x}
    {x} again
    {x} {t}
    {t} : {x}
    so this is {x} {t}
    look at {x}
    {x} is everything
    i love {x} so much
    not sure about {x}
    nobody talks about {x} enough
    {x} never gets old
    everyone is talking about {x} {t}
    {x} , that is all
    thinking of {x} {t}
    i miss {x}
    {x} made my day
    more {x} please
    why is {x} trending ?
    {x} or nothing
    the one and only {x}
    {n} reasons to love {x}
    we need to talk about {x}
    just {x} being {x}
    say what you want , {x} is great
    {x} {x} {x}
    guess what : {x}
    never forget {x}
    this is why i like {x}
    my first time with {x} {t}
    all about {x} {t}
    {x} is back {t}
    how good is {x} ?
    {x} > everything else
    there is nothing like {x}
    {x} is overrated , change my mind
    still the best : {x}
    {t} is all about {x}
    a bit of {x} {t}
    who else likes {x} ?
    {x} , as good as ever
    only {x} can do this
    throwback to {x} {t}
    here comes {x}
    ok {x} i see you
    {x} for the win
""")

EMPTY_TEMPLATES = _lines("""
    good morning everyone
    so tired {t}
    can't sleep {t}
    what a day
    i need coffee
    who is awake ?
    nothing to do {t}
    {n} more hours to go
    why is it so cold {t}
    mood {t}
    this is so true
    best day in a long time
    i am so done {t}
    good night all
    friends are the best
    hungry {t}
    thank you all for {n} followers
    do what you love
    it is only the middle of the week
    lunch was great {t}
    feeling good {t}
    no words
    life is good
    see you all {t}
    do not give up
""")

# A second name, never the one that the image is about.
FURTHER_TEMPLATES = _lines("""
    {main} w/ {y}
    {main} feat {y}
    {main} ( and {y} )
    {main} , not {y}
    {main} just like {y}
    {main} and {y} too
    {main} + {y}
    first {y} , now : {main}
    forget {y} , {main}
    after {y} : {main}
""")

TIMES = _lines("""
    today
    tonight
    now
    this morning
    last night
    right now
    this week
    on monday
    again
    this year
    at last
    on friday
""")
NUMBERS = ("2", "3", "5", "7", "10", "12", "20", "50", "100", "200")
OPENINGS = ("omg", "wow ,", "ok but", "lol", "so ,", "and yes ,", "well", "hey ,", "btw", "yo")
CLOSINGS = ("lol", "!", "!!", "...", "omg", "haha", "tbh", "for real", "smh", "no cap", ".")
EMOJI = ("😍", "😂", "🔥", "💯", "🙌", "😭", "👀", "✨", "🎉", "😎", "🙏", "🤔")
HASHTAGS = ("tbt", "mood", "blessed", "truth", "goals", "nofilter", "facts", "fun", "monday")
HANDLES = (
    "jen",
    "mike",
    "lil",
    "the_real",
    "its",
    "xo",
    "dj",
    "mr",
    "queen",
    "happy",
    "just",
    "k8",
)
