// A newcomer's first minutes on the gateway's own page, in a real browser, against a gateway that serves its sandbox.
// Usage: node graphiql.mjs URL [SCREENSHOT_DIR]; the browser is $CHROMIUM, or else /usr/bin/chromium.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { check, finish } from './report.mjs';

const [url, screenshots] = process.argv.slice(2);
if (!url) {
  console.error('Usage: node graphiql.mjs URL [SCREENSHOT_DIR]');
  process.exit(2);
}
// The page is at this address, under whatever path.
const home = new URL('./', url.endsWith('/') ? url : `${url}/`).href;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});
const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: 'light' });

// Watched from the first byte to the last on every page, judged at the end. The context sees the workers' requests too.
const requests = [];
const faults = [];
context.on('request', (request) => requests.push(request.url()));
context.on('requestfailed', (request) => {
  // What the page had under way when it was stopped, reloaded or closed was ended by the browser itself.
  const { errorText } = request.failure();
  if (errorText !== 'net::ERR_ABORTED') faults.push(`${request.url()} failed: ${errorText}`);
});
context.on('response', (response) => {
  if (response.status() >= 400) faults.push(`${response.url()} answered ${response.status()}`);
});
context.on('console', (message) => {
  if (message.type() === 'error') faults.push(`the console shows: ${message.text()}`);
});
context.on('weberror', (fault) => faults.push(`the page threw: ${fault.error().message}`));
await context.exposeFunction('reportViolation', (violation) => faults.push(violation));
await context.addInitScript(() => {
  document.addEventListener('securitypolicyviolation', (event) => {
    globalThis.reportViolation(`${event.violatedDirective} forbids ${event.blockedURI}`);
  });
});

const page = await context.newPage();
const graphiql = operate(page);
const docs = page.getByRole('region', { name: 'Documentation Explorer' });
let settings;

try {
  await check('the gateway says that it serves its sandbox, with a token and ids', async () => {
    settings = await (await fetch(new URL('graphiql.json', home))).json();
    assert.equal(settings.sandbox, true);
    assert.equal(typeof settings.token, 'string');
    assert.ok(settings.ids.length >= 2, 'fewer than two ids');
  });

  const opened = performance.now();
  await check('the page opens, under a Content-Security-Policy', async () => {
    const response = await page.goto(home);
    assert.equal(response.status(), 200);
    const policy = (await response.allHeaders())['content-security-policy'] ?? '';
    assert.match(policy, /default-src 'none'/);
    assert.match(policy, /script-src 'self'(;|$)/);
    assert.equal(await page.title(), 'Appointments Gateway');
    await page.getByText('Sandbox: made-up data').waitFor();
  });

  await check('play on the first tab brings the appointment of its variables', async () => {
    await assertFirstAnswer();
    console.log(`     ${Math.round(performance.now() - opened)} ms from opening the page to the answer`);
    await shoot('1-after-play');
  });

  await check('every other tab that asks or changes plays without errors', async () => {
    const names = await graphiql.tabs.allInnerTexts();
    assert.deepEqual(names, ['MobileScreen', 'SeveralByIds', 'FeatureScreen', 'List', 'Change', 'Live']);
    for (const [index, name] of names.slice(1, -1).entries()) {
      await graphiql.changeTo(name);
      const { answer, ms } = await graphiql.playOperation(name);
      assert.equal(answer.errors, undefined, `${name} has errors`);
      console.log(`     ${name}: ${ms} ms from play to the answer`);
      await shoot(`2-tab-${index + 2}-${name}`);
    }
  });

  await check('several ids come back in the order asked, null for what is unknown', async () => {
    await graphiql.changeTo('SeveralByIds');
    const { answer } = await graphiql.playOperation('SeveralByIds');
    const { ids } = await graphiql.read('variables.json');
    assert.deepEqual(ids, settings.ids);
    answer.data.appointmentsByIds.forEach((appointment, index) => {
      if (appointment !== null) assert.equal(appointment.id, ids[index]);
    });
    assert.equal(answer.data.appointmentsByIds.length, ids.length);
  });

  await check('the list goes on behind the cursor of its first page', async () => {
    await graphiql.changeTo('List');
    const first = (await graphiql.playOperation('List')).answer.data.appointments;
    assert.equal(first.edges.length, 10);
    assert.ok(first.totalCount > 10);
    await graphiql.write('variables.json', { after: first.pageInfo.endCursor });
    const second = (await graphiql.playOperation('List')).answer.data.appointments;
    const seen = [...first.edges, ...second.edges].map(({ node }) => node.id);
    assert.equal(new Set(seen).size, 20, 'an appointment is on both pages');
  });

  await check('a change that is not accepted says why, as userErrors', async () => {
    await graphiql.changeTo('Change');
    const { id } = await graphiql.read('variables.json');
    await graphiql.write('variables.json', { id, input: { durationInMinutes: 0 } });
    const { answer } = await graphiql.playOperation('Change');
    assert.equal(answer.data.updateAppointment.appointment, null);
    assert.deepEqual(answer.data.updateAppointment.userErrors[0].field, ['durationInMinutes']);
  });

  await check('Live shows the change that is played in another tab of the browser, until it is stopped', async () => {
    await graphiql.changeTo('Live');
    const { answer, request } = await graphiql.playOperation('Live');
    const before = answer.data.appointmentChanged.durationInMinutes;
    const after = before === 35 ? 40 : 35;
    assert.equal(request.headers().accept, 'text/event-stream');

    const elsewhere = operate(await context.newPage());
    await elsewhere.page.goto(home);
    const change = async (durationInMinutes) => {
      await elsewhere.changeTo('Change');
      const { id } = await elsewhere.read('variables.json');
      await elsewhere.write('variables.json', { id, input: { durationInMinutes } });
      const { answer: changed } = await elsewhere.playOperation('Change');
      assert.equal(changed.data.updateAppointment.appointment.durationInMinutes, durationInMinutes);
    };
    await change(after);
    const shows = (minutes) => graphiql.response().getByText(`"durationInMinutes": ${minutes}`);
    const started = performance.now();
    await page.bringToFront();
    await shows(after).waitFor();
    console.log(`     ${Math.round(performance.now() - started)} ms from the change to its sight`);
    await shoot('3-live');

    const ended = page.waitForEvent('requestfailed', (candidate) => candidate === request);
    await graphiql.stop.click();
    await ended;
    await graphiql.play.waitFor();
    await elsewhere.page.bringToFront();
    await change(before);
    await elsewhere.page.close();
    assert.equal((await graphiql.read('response.json')).data.appointmentChanged.durationInMinutes, after);
  });

  await check('the docs pane shows the type Appointment with its description', async () => {
    const described = await ask('{ __type(name: "Appointment") { description } }');
    assert.ok(described.data.__type.description, 'the schema does not describe it');

    await page.getByRole('button', { name: 'Show Documentation Explorer' }).click();
    await docs.getByRole('combobox').fill('Appointment');
    await page.getByRole('option', { name: 'Appointment', exact: true }).click();
    await docs.getByRole('link', { name: 'durationInMinutes', exact: true }).waitFor();
    const shown = plain(await docs.innerText());
    const expected = plain(described.data.__type.description);
    assert.ok(shown.includes(expected), `"${expected}" is not in the pane`);
    await shoot('4-docs');
    await page.getByRole('button', { name: 'Hide Documentation Explorer' }).click();
  });

  await check('the settings offer a theme and no way to keep headers', async () => {
    await page.getByRole('button', { name: 'Open settings dialog' }).click();
    const dialog = page.getByRole('dialog');
    assert.doesNotMatch(await dialog.innerText(), /headers/i);
    await dialog.getByRole('button', { name: 'Dark' }).click();
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });
    await shoot('5-dark');
  });

  await check('a second visit plays as well, in the chosen theme, whatever an older version left behind', async () => {
    await page.evaluate(() => localStorage.setItem('graphiql:query', '{ ofAnOlderVersion }'));
    await page.reload();
    await assertFirstAnswer();
    assert.match(await page.evaluate(() => document.body.className), /graphiql-dark/);
  });

  await check('it fits a narrow window', async () => {
    await page.setViewportSize({ width: 820, height: 700 });
    await graphiql.play.click({ trial: true });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `${overflow} pixels stick out`);
    await shoot('6-narrow');
  });

  await check('the browser keeps no token', async () => {
    // GraphiQL writes what it keeps half a second after the last change.
    await page.waitForTimeout(1000);
    const kept = await context.storageState({ indexedDB: true });
    const session = await page.evaluate(() => ({ ...sessionStorage }));
    const stored = JSON.stringify({ kept, session });
    assert.ok(!stored.includes(settings.token), `the token is in ${stored}`);
    assert.ok(!/bearer/i.test(stored), `a header is in ${stored}`);
  });

  await check('nothing was asked of another host, nothing failed, the console is clean', () => {
    // Data of the page itself is no request to anybody.
    const abroad = requests.filter((target) => !target.startsWith(home) && !target.startsWith('data:'));
    assert.deepEqual(abroad, []);
    assert.equal(faults.length, 0, `${faults.length} faults, named below`);
    for (const worker of ['editor', 'graphql', 'json']) {
      assert.ok(requests.some((target) => target.includes(`/${worker}.worker-`)), `the ${worker} worker was not seen`);
    }
    console.log(`     ${requests.length} requests`);
  });

  finish();
} catch (error) {
  // Each check stands on the one before, so the first that fails is the last.
  console.error(error.message);
  for (const fault of faults) console.error(`     ${fault}`);
  await shoot('failed');
  process.exitCode = 1;
} finally {
  await browser.close();
}

async function assertFirstAnswer() {
  const { answer } = await graphiql.playOperation('MobileScreen');
  const { id } = await graphiql.read('variables.json');
  assert.equal(id, settings.ids[0]);
  assert.equal(answer.errors, undefined, 'the answer has errors');
  assert.equal(answer.data.appointment.id, id);
  // The editor's text is there before anybody sees it.
  await graphiql.response().getByText(id).waitFor();
}

/** GraphiQL on a page, as a person operates it. */
function operate(page) {
  const tabs = page.getByRole('tab');
  const play = page.getByRole('button', { name: /^Execute query/ });
  const stop = page.getByRole('button', { name: /^Stop query/ });
  return { page, tabs, play, stop, response, changeTo, playOperation, read, write };

  /** Tabs and buttons are there before the editors are, and until then they do nothing of use. */
  async function editors() {
    await page.waitForFunction(() => globalThis.__MONACO?.editor.getEditors().length === 4);
  }

  function response() {
    return page.getByRole('region', { name: 'Result Window' });
  }

  /** A person reads an operation before playing it, and GraphiQL needs a moment to read it too. */
  async function changeTo(name) {
    await editors();
    await tabs.getByRole('button', { name, exact: true }).click();
    await page.waitForTimeout(500);
  }

  async function playOperation(name) {
    await editors();
    const started = performance.now();
    const [request] = await Promise.all([
      page.waitForRequest((candidate) => candidate.postDataJSON()?.operationName === name),
      play.click(),
    ]);
    await request.response();
    await page.waitForFunction(() => {
      const model = globalThis.__MONACO.editor.getModels().find(({ uri }) => uri.path.endsWith('response.json'));
      return model.getValue() !== '';
    });
    const ms = Math.round(performance.now() - started);
    return { answer: await read('response.json'), request, ms };
  }

  /** The whole text of an editor, of which only the lines in sight are in the document. */
  async function read(name) {
    const text = await page.evaluate((end) => {
      const { editor } = globalThis.__MONACO;
      return editor.getModels().find(({ uri }) => uri.path.endsWith(end)).getValue();
    }, name);
    return JSON.parse(text);
  }

  async function write(name, value) {
    await page.evaluate(
      ([end, text]) => {
        const { editor } = globalThis.__MONACO;
        editor.getModels().find(({ uri }) => uri.path.endsWith(end)).setValue(text);
      },
      [name, JSON.stringify(value, null, 2)],
    );
  }
}

async function ask(query) {
  const response = await fetch(new URL(settings.endpoint, home), {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Accept: 'application/json' },
    body: JSON.stringify({ query }),
  });
  return response.json();
}

/** Text as it reads, whatever marks and line breaks it was written or laid out with. */
function plain(text) {
  return text.replace(/[`*_]/g, '').replace(/\s+/g, ' ').trim();
}

async function shoot(name) {
  if (!screenshots) return;
  // A tooltip over the button pressed last would hide what is below it.
  await page.mouse.move(640, 799);
  await page.waitForTimeout(300);
  await page.screenshot({ path: join(screenshots, `${name}.png`) });
}
