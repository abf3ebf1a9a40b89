// What the clients of both transports do against a gateway that serves its sandbox.
import assert from 'node:assert/strict';
import { check as report } from './report.mjs';

const PATIENCE_MS = 20_000;

/**
 * Plays the part of a user of a client library. `connect(token)` makes a client; of each, `subscribe(request, sink)`
 * returns what ends it, and `dispose()` ends the client.
 */
export async function play(base, connect) {
  const { token, ids } = await (await fetch(new URL('/graphiql.json', base))).json();
  const [id] = ids;
  const query = 'subscription ($id: UUID!) { appointmentChanged(id: $id) { id interpreterLanguage } }';
  const watch = (id) => ({ query, variables: { id } });
  const change = (language) => ({
    query: `mutation ($id: UUID!, $language: String) {
      updateAppointment(id: $id, input: { interpreterLanguage: $language }) { appointment { interpreterLanguage } }
    }`,
    variables: { id, language },
  });
  const client = connect(token);

  await check('a subscriber sees the state at once, and a change', async () => {
    const events = listen(client, watch(id));
    assert.equal((await events.next()).data.appointmentChanged.id, id);
    const [changed] = await all(client, change('qa'));
    assert.deepEqual(changed, { data: { updateAppointment: { appointment: { interpreterLanguage: 'qa' } } } });
    assert.equal((await events.next()).data.appointmentChanged.interpreterLanguage, 'qa');
    await events.leave();
  });

  await check('who has left sees nothing more, and may come back', async () => {
    const left = listen(client, watch(id));
    await left.next();
    await left.leave();
    await all(client, change('qb'));
    assert.equal(left.rest(), 0);
    const events = listen(client, watch(id));
    assert.equal((await events.next()).data.appointmentChanged.interpreterLanguage, 'qb');
    await events.leave();
  });

  await check('a query has one answer and an end', async () => {
    assert.deepEqual(await all(client, { query: '{ __typename }' }), [{ data: { __typename: 'Query' } }]);
  });

  await check('an unknown id is an error and an end', async () => {
    const [answer, ...more] = await all(client, watch('00000404-0000-4000-8000-00000000cafe'));
    assert.deepEqual(codes(answer), ['NOT_FOUND']);
    assert.equal(answer.data, null);
    assert.deepEqual(more, []);
  });

  await check('a token that the upstream does not know is an error and an end', async () => {
    const stranger = connect('nobody');
    const [answer, ...more] = await all(stranger, watch(id));
    assert.deepEqual(codes(answer), ['UNAUTHENTICATED']);
    assert.deepEqual(more, []);
    await stranger.dispose();
  });

  return { client, token, watch: watch(id) };
}

/** A step that fails where nothing happens any more. */
export function check(name, step) {
  return report(name, () => inTime(step()));
}

export function codes(answer) {
  return answer.errors.map(({ extensions }) => extensions.code);
}

/** All answers of an operation that ends. */
export async function all(client, request) {
  const answers = [];
  await new Promise((complete, error) => {
    client.subscribe(request, { next: (answer) => answers.push(answer), error, complete });
  });
  return answers;
}

/** The answers of an operation that goes on, one at a time. */
export function listen(client, request) {
  const heard = [];
  let wake = () => {};
  let leave;
  const ended = new Promise((complete, error) => {
    const next = (answer) => {
      heard.push(answer);
      wake();
    };
    leave = client.subscribe(request, { next, error, complete });
  });
  // Who waits for the next one hears of it.
  ended.catch(() => {});
  return {
    async next() {
      if (heard.length === 0) await Promise.race([new Promise((resolve) => (wake = resolve)), ended]);
      assert.ok(heard.length > 0, 'it ends without another answer');
      return heard.shift();
    },
    rest: () => heard.length,
    leave: () => {
      leave();
      return ended;
    },
  };
}

async function inTime(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('nothing happens any more')), PATIENCE_MS);
  });
  await Promise.race([promise, late]);
  clearTimeout(timer);
}
