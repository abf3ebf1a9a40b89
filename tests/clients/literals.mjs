// Documents with literals, hand-picked and random, and what graphql-js makes of each.
// Usage: node literals.mjs [SEED [COUNT]]
//
// Each line of the output is a case in JSON: the `document`; its `outcome`, which is "syntax" (it cannot be parsed),
// "invalid" (it does not match the schema) or "executed"; and, when executed, the `calls` that the upstream must
// receive: the ids of appointments to read, and the bodies of appointments to create.
import { readFileSync } from 'node:fs';
import { buildSchema, executeSync, parse, validate } from 'graphql';

const [seed = '1', count = '6000'] = process.argv.slice(2);
const schema = buildSchema(readFileSync(new URL('../../schema.graphql', import.meta.url), 'utf8'));

const accept = (name, pattern, coerced) => {
  const scalar = schema.getType(name);
  scalar.parseValue = (value) => {
    if (typeof value !== 'string' || !pattern.test(value)) {
      throw new Error(`not a ${name}`);
    }
    return coerced(value);
  };
  scalar.parseLiteral = (node) => scalar.parseValue(node.kind === 'StringValue' ? node.value : undefined);
};
accept('UUID', /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i, (text) => text.toLowerCase());
accept('DateTime', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/, (text) => text);
accept('Date', /^\d{4}-\d\d-\d\d$/, (text) => text);

// Random numbers that are the same for the same seed (mulberry32).
let state = Number(seed) >>> 0;
function random(limit) {
  state = (state + 0x6d2b79f5) >>> 0;
  let bits = Math.imul(state ^ (state >>> 15), state | 1);
  bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
  return ((bits ^ (bits >>> 14)) >>> 0) % limit;
}
const pick = (items) => items[random(items.length)];
const several = (most, item) => Array.from({ length: random(most + 1) }, () => item()).join('');

// --- Literals ---

const hex = (digits) => Array.from({ length: digits }, () => pick('0123456789abcdefABCDEF')).join('');
const character = () =>
  pick([' ', '\t', 'a', 'Z', '0', '_', '#', ',', '{', '}', '$', "'", '/', 'é', 'ŵ', '\u00a0', '\u2028', '\ufeff',
    '\u0001', '\u007f', '🦀', '𝒳', '\u{10ffff}']);
const escape = () =>
  pick([
    () => '\\' + pick('"\\/bfnrt'),
    () => '\\u' + hex(4),
    () => '\\u00' + hex(2),
    () => `\\uD8${hex(2)}\\uDC${hex(2)}`,
    () => `\\ud${pick('89ab')}${hex(2)}\\ud${pick('cdef')}${hex(2)}`,
    () => `\\u{${hex(1 + random(5))}}`,
    () => `\\u{10${hex(4)}}`,
    () => `\\u{${'0'.repeat(random(5))}${hex(2)}}`,
  ])();
const badEscape = () =>
  pick([
    () => '\\' + pick([...'axuUN0\'{} é🦀']),
    () => '\\u' + hex(random(4)) + pick(' g{'),
    () => `\\u{${hex(random(12))}${pick(['', '}', ' }', 'g}'])}`,
    () => '\\uD' + pick('89abcdef') + hex(2),
    () => `\\uDC${hex(2)}\\uD8${hex(2)}`,
    () => `\\uD8${hex(2)}\\u{DC00}`,
    () => pick(['\n', '\r', '"', '\\']),
  ])();
const string = () =>
  `"${several(8, () => pick([character, character, escape, random(12) ? escape : badEscape])())}"`;
const lineEnd = () => pick(['\n', '\n', '\r\n', '\r', '\n\r', '\n\n']);
const blank = () => several(6, () => pick([' ', ' ', '\t']));
const block = () => {
  const part = () =>
    pick([
      character,
      () => pick(['"', '""', '\\"""', '\\\\"""', '\\""', '\\', '\\n', '\\u0041', '\\u{41}', 'x']),
      () => lineEnd() + blank(),
      () => lineEnd() + blank(),
      () => (random(30) ? '' : '"""'),
    ])();
  return `"""${several(10, part)}"""`;
};
const integer = () =>
  pick(['', '', '-']) + pick([() => '0', () => String(random(100)), () => String(2147483640 + random(20)),
    () => `${1 + random(9)}${several(30, () => String(random(10)))}`])();
const number = () =>
  pick([
    integer,
    integer,
    () => `${integer()}.${several(4, () => String(random(10)))}`,
    () => `${integer()}${pick('eE')}${pick(['', '+', '-'])}${several(3, () => String(random(10)))}`,
    () => `${integer()}.${random(10)}${pick('eE')}${pick(['', '+', '-'])}${random(400)}`,
    () => pick(['', '-', '+', '.', '0']) + integer() + pick(['', 'a', '_', '.', '.1.', 'x1', '-', '#\n', '"']),
  ])();
const word = () =>
  pick(['LOW', 'MEDIUM', 'HIGH', 'low', 'LOWER', 'true', 'false', 'null', 'nullable', 'trueish', 'falsey', 'on', 'query',
    '"LOW"', '_', 'é', '$a', 'TRUE']);
const uuid = () => `${hex(8)}-${hex(4)}-${hex(4)}-${hex(4)}-${hex(12)}`;
const id = () => pick([() => `"${uuid()}"`, () => `"${uuid()}"`, () => `"""\n ${uuid()}\n"""`,
  () => `"${uuid()}"`.replace(/[0-9a-f]/, (digit) => `\\u{${digit.charCodeAt().toString(16)}}`)])();
const separator = () => pick([' ', ',', ', ', '\n', ',,', ' #]"\n', '\ufeff', '']);
const list = (item, nesting = 2) => {
  const element = () => (nesting && !random(12) ? list(item, nesting - 1) : random(25) ? item() : scalar());
  return `[${separator()}${several(4, () => element() + separator())}${random(40) ? ']' : pick(['', ']]', '}'])}`;
};
const scalar = () => pick([string, block, number, word])();
const field = (name, value) => `${name}${separator()}:${separator()}${value()}${separator() || ' '}`;
const object = (fields) => {
  const one = () => {
    const [name, value] = pick(fields);
    return field(random(40) ? name : pick(['nope', 'on', 'true', '"name"']), random(15) ? value : scalar);
  };
  return `{${separator()}${several(4, one)}${random(40) ? '}' : pick(['', '}}', ']'])}`;
};
const nullable = (value) => () => (random(12) ? value() : 'null');
const text = nullable(() => pick([string, block])());
const boolean = nullable(() => pick(['true', 'false', word()]));
const claimant = nullable(() => object([['name', text], ['phoneNumber', text], ['email', text],
  ['dateOfBirth', () => '"1990-12-25"']]));
const features = nullable(() => object([['bandwidth', nullable(word)], ['callRecording', boolean],
  ['messagesChat', boolean]]));

/** The fields of `CreateAppointmentInput`: type and literal of each. */
const FIELDS = {
  reference: ['String', text],
  interpreterLanguage: ['String', text],
  durationInMinutes: ['Int', nullable(number)],
  departmentId: ['ID', nullable(() => pick([number, number, string])())],
  isInterpreterNeeded: ['Boolean', boolean],
  claimant: ['ClaimantInput', claimant],
  features: ['FeaturesInput', features],
};
const AT = 'appointmentAt: "2031-03-01T09:00:00Z"';
const PAYLOAD = '{ userErrors { message } }';
const create = (fields) => `createAppointment(input: { ${AT} ${fields} }) ${PAYLOAD}`;

/** A literal as an input field, and as the default of a variable there. */
const withField = (name, literal) => [
  `mutation { ${create(`${name}: ${literal}`)} }`,
  `mutation ($v: ${FIELDS[name][0]} = ${literal}) { ${create(`${name}: $v`)} }`,
];
const withIds = (literal) => [
  `{ appointmentsByIds(ids: ${literal}) { id } }`,
  `query ($v: [UUID!]! = ${literal}) { appointmentsByIds(ids: $v) { id } }`,
];
const withInput = () =>
  `mutation { createAppointment(input: ${object([['appointmentAt', () => '"2031-03-01T09:00:00Z"'],
    ['appointmentAt', () => '"""\n  2031-03-01T09:00:00Z\n"""'],
    ...Object.entries(FIELDS).map(([name, [, value]]) => [name, value])])}) ${PAYLOAD} }`;

// --- Documents ---

const DOCUMENTS = [
  '"about" query A("one" $a: Boolean = true @skip(if: true)) { a: __typename @skip(if: $a) ...F @include(if: $a) } ' +
    '"""more""" fragment F on Query { b: __typename ... on Query { __typename } ... @skip(if: false) { c: __typename } }',
  `query ($ids: [ UUID ! ] ! = ["${uuid()}"], $i: Boolean!= true) { appointmentsByIds(ids: $ids) { id @include(if: $i) claimant { name } } }`,
  `mutation A($r: String = "x", $m: Int = -0) { one: ${create('reference: $r durationInMinutes: $m')} ${create('claimant: { name: "a" }')} }`,
  'query A { __typename } fragment on2 on Query { __typename } query B { ...on2 }',
  '{ on: __typename fragment: __typename query: __typename true: __typename null: __typename }',
  `{ __type(name: "Query") { name fields(includeDeprecated: true) { name args { name } } } }`,
  `{ appointment(id: "${uuid()}") { ...G features { all(enabled: true) { name } } } } fragment G on Appointment { id status }`,
];
const PIECE = /"""(?:\\"""|[^"]|"(?!""))*"""|"(?:\\.|[^"\\\n])*"|\.\.\.|[A-Za-z_][A-Za-z0-9_]*|-?[0-9.]+|\s+|./gu;
const VOCABULARY = ['{', '}', '(', ')', '[', ']', ':', '=', '!', '$', '@', '...', '&', '|', ',', '#', '\n', '\r', ' ', '',
  '"about"', '"\\x"', '"\\u{41}"', '"""', '"', 'on', 'query', 'mutation', 'fragment', 'true', 'null', 'id', 'name', '__typename', 'Query', 'F',
  '$a', '@skip(if: true)', '@include(if: $a)', '()', '{}', '[]', '0', '-0', '1', '\ufeff', 'é', '.', '-', '...on', 'a:'];
const mutated = () => {
  const pieces = pick(DOCUMENTS).match(PIECE);
  for (let round = random(3); round >= 0; round -= 1) {
    const at = random(pieces.length);
    pick([
      () => pieces.splice(at, 1),
      () => pieces.splice(at, 0, pick(VOCABULARY)),
      () => pieces.splice(at, 1, pick(VOCABULARY)),
      () => pieces.splice(at, 0, pick(pieces)),
      () => pieces.splice(at, 1, pick(pieces)),
    ])();
  }
  return pieces.join('');
};

const HAND_PICKED = [
  ...['"\\u{1F600}"', '"\\uD83D\\uDE00"', '"\\ud83d\\ude00 \\u0000"', '"\\uDE00\\uD83D"', '"\\uD83D"', '"\\u{D83D}"',
    '"\\u{110000}"', '"\\u{}"', '"\\u{0000041}"', '"\\u{00000041}"', '"\\u{000000041}"', '"\\""', '"\\/\\b\\f\\n\\r\\t\\\\"',
    '"\\\'"', '"a\nb"', '"a\\\nb"', '"', '""', '"""', '""""', '"""""', '""""""', '"""""""', '""""""""', '"""a""""',
    '""" \\""" """', '"""\\\\"""', '"""\\\\""" """', '"""a\\""""""', '"""\n    a\n  \n\n     b\n   c\n \n"""',
    '"""  a\n  b"""', '"""a\r\r\n b\r  c"""', '"""\n\ta\n    b"""', '"""\n\u00a0a\n  b"""', '"""\\n\\u0041"""',
    '"\u0001\u007f"', '"\ufeff"', '"🦀"', 'text', '1', '["a"]', '{}', '[]'].flatMap((it) => withField('reference', it)),
  ...['-0', '0', '00', '-00', '01', '-', '1.0', '1e3', '2147483647', '2147483648', '-2147483648', '-2147483649', '0x1',
    '1_', '1.', '.5', '+1', '1e', '1e999', '9'.repeat(400), '[1]', '"1"'].flatMap((it) => [
    ...withField('durationInMinutes', it),
    ...withField('departmentId', it),
  ]),
  ...['9007199254740993', '9223372036854775807', '9223372036854775808', '18446744073709551615', '18446744073709551616',
    '-9223372036854775808', '-9223372036854775809', '"-0"', '"007"', '""'].flatMap((it) => withField('departmentId', it)),
  ...['LOW', '"LOW"', 'low', 'null', 'true', '[LOW]', 'nullable'].flatMap((it) =>
    withField('features', `{ bandwidth: ${it} }`)),
  ...['[]', '[[]]', `"${uuid()}"`, `["${uuid()}" "${uuid()}",]`, `[["${uuid()}"]]`, `["""${uuid()}"]`, '[null]', 'null',
    '{}', '[00]', '[truefalse]'].flatMap(withIds),
  ...['{ name: "a" }', '{ name: "a" name: "b" }', '{}', '[{ name: "a" }]', '{ name "a" }', '{ name: "a"email: null }',
    '{ 1: "a" }', '{ name: { name: "a" } }'].flatMap((it) => withField('claimant', it)),
  ...DOCUMENTS,
  'query() { __typename }', 'queryA { __typename }', 'query A() { __typename }', '{ __typename() }', '{ }', '',
  '{ ...on } fragment on on Query { __typename }', 'fragment on on Query { __typename } { __typename }',
  '{ ...F } fragment F on Query { __typename }', '{ ...F } fragment F onQuery { __typename }',
  '{ ...F } fragment F on#on\nQuery { __typename }', '{ ... on on { __typename } }', '{ ... { __typename } }',
  '"about" { __typename }', '"about" "more" query { __typename }', 'query { __typename } "about"',
  '{ "about" __typename }', 'query ($a: Int @skip(if: true) = 1) { __typename }',
  'query A { __typename } query A { __typename }', '{ __typename } { __typename }', '{ __typename } query A { __typename }',
  'fragment F on Query { __typename }', '# comment', '{ __typename @ skip(if:true) }', '{ . .. __typename }',
];

// --- Outcomes ---

const NAMES = {
  appointmentAt: 'appointment_at',
  durationInMinutes: 'duration_in_minutes',
  departmentId: 'department_id',
  isInterpreterNeeded: 'is_interpreter_needed',
  interpreterLanguage: 'interpreter_language',
  phoneNumber: 'phone_number',
  dateOfBirth: 'date_of_birth',
  callRecording: 'features_call_recording_enable',
  messagesChat: 'features_messages_chat_enable',
  bandwidth: 'features_bandwidth',
};
/** The body of the upstream call for an input: an id of digits is a number there. */
function body(input) {
  const members = Object.entries(input).flatMap(([name, value]) => {
    const upstream = NAMES[name] ?? name;
    if (name === 'features') {
      return Object.entries(body(value ?? {}));
    }
    if (name === 'claimant') {
      return [[upstream, value && body(value)]];
    }
    if (name === 'departmentId' && /^(0|[1-9]\d*)$/.test(value) && BigInt(value) < 2n ** 64n) {
      return [[upstream, { number: value }]];
    }
    return [[upstream, name === 'bandwidth' && value ? value.toLowerCase() : value]];
  });
  return Object.fromEntries(members);
}
/** JSON, in which an id keeps all its digits. */
const json = (value) => JSON.stringify(value).replace(/\{"number":"(\d+)"\}/g, '$1');

function outcome(source) {
  let document;
  try {
    document = parse(source);
  } catch {
    return { outcome: 'syntax' };
  }
  if (validate(schema, document).length) {
    return { outcome: 'invalid' };
  }
  const calls = [];
  const read = (id) => {
    calls.push(id);
    return null;
  };
  const rootValue = {
    appointment: ({ id }) => read(id),
    appointmentsByIds: ({ ids }) => ids.map(read),
    createAppointment: ({ input }) => {
      calls.push(body(input));
      return { userErrors: [] };
    },
  };
  const { data } = executeSync({ schema, document, rootValue });
  return data === undefined ? { outcome: 'invalid' } : { outcome: 'executed', calls };
}

const generators = [
  ...Object.entries(FIELDS).map(([name, [, literal]]) => () => pick(withField(name, literal()))),
  () => pick(withField('reference', text())),
  () => pick(withField('reference', scalar())),
  () => pick(withIds(list(id))),
  withInput,
  withInput,
  mutated,
  mutated,
  mutated,
];
const documents = Array.from({ length: Number(count) }, (_, n) => generators[n % generators.length]());
for (const document of [...HAND_PICKED, ...documents]) {
  console.log(json({ document, ...outcome(document) }));
}
