// A newcomer's first minutes on the gateway's own page, in a real browser, against a gateway that serves its sandbox.
// Usage: node graphiql.mjs URL [SCREENSHOT_DIR]; the browser is $CHROMIUM, or else /usr/bin/chromium.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [url, screenshots] = process.argv.slice(2);
if (!url) {
  console.error('Usage: node graphiql.mjs URL [SCREENSHOT_DIR]');
  process.exit(2);
}
const home = new URL('/', url).href;

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
const page = await context.newPage();

// Watched from the first byte to the last, judged at the end. The context sees the workers' requests as well.
const requests = [];
const faults = [];
context.on('request', (request) => requests.push(request.url()));
context.on('requestfailed', (request) => {
  // What the page had under way when it was reloaded or closed was ended by the browser itself.
  const { errorText } = request.failure();
  if (errorText !== 'net::ERR_ABORTED') faults.push(`${request.url()} failed: ${errorText}`);
});
context.on('response', (response) => {
  if (response.status() >= 400) faults.push(`${response.url()} answered ${response.status()}`);
});
page.on('console', (message) => {
  if (message.type() === 'error') faults.push(`the console shows: ${message.text()}`);
});
page.on('pageerror', (error) => faults.push(`the page threw: ${error.message}`));
await page.exposeFunction('reportViolation', (violation) => faults.push(violation));
await page.addInitScript(() => {
  document.addEventListener('securitypolicyviolation', (event) => {
    globalThis.reportViolation(`${event.violatedDirective} forbids ${event.blockedURI}`);
  });
});

const operations = page.getByRole('tab');
const play = page.getByRole('button', { name: /^Execute query/ });
const docs = page.getByRole('region', { name: 'Documentation Explorer' });
let settings;
let passed = 0;

try {
  await check('the gateway says that it serves its sandbox, with a token and ids', async () => {
    settings = await (await fetch(new URL('/graphiql.json', url))).json();
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

  await check('every other tab plays without errors', async () => {
    const count = await operations.count();
    assert.ok(count >= 3, `only ${count} tabs`);
    for (let index = 1; index < count; index += 1) {
      const name = await changeTab(index);
      const { answer, ms } = await playOperation(name);
      assert.equal(answer.errors, undefined, `${name} has errors`);
      console.log(`     ${name}: ${ms} ms from play to the answer`);
      await shoot(`2-tab-${index + 1}-${name}`);
    }
  });

  await check('several ids come back in the order asked, null for what is unknown', async () => {
    const name = await changeTab(1);
    const { answer } = await playOperation(name);
    const { ids } = JSON.parse(await editor('variables.json'));
    assert.deepEqual(ids, settings.ids);
    answer.data.appointmentsByIds.forEach((appointment, index) => {
      if (appointment !== null) assert.equal(appointment.id, ids[index]);
    });
    assert.equal(answer.data.appointmentsByIds.length, ids.length);
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
    await shoot('3-docs');
    await page.getByRole('button', { name: 'Hide Documentation Explorer' }).click();
  });

  await check('the settings offer a theme and no way to keep headers', async () => {
    await page.getByRole('button', { name: 'Open settings dialog' }).click();
    const dialog = page.getByRole('dialog');
    assert.doesNotMatch(await dialog.innerText(), /headers/i);
    await dialog.getByRole('button', { name: 'Dark' }).click();
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });
    await shoot('4-dark');
  });

  await check('a second visit plays as well, in the chosen theme, whatever an older version left behind', async () => {
    await page.evaluate(() => localStorage.setItem('graphiql:query', '{ ofAnOlderVersion }'));
    await page.reload();
    await assertFirstAnswer();
    assert.match(await page.evaluate(() => document.body.className), /graphiql-dark/);
  });

  await check('it fits a narrow window', async () => {
    await page.setViewportSize({ width: 820, height: 700 });
    await play.click({ trial: true });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `${overflow} pixels stick out`);
    await shoot('5-narrow');
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

  console.log(`${passed} of ${passed} checks ok`);
} catch (error) {
  // Each check stands on the one before, so the first that fails is the last.
  console.error(error.message);
  for (const fault of faults) console.error(`     ${fault}`);
  await shoot('failed');
  process.exitCode = 1;
} finally {
  await browser.close();
}

async function check(name, steps) {
  try {
    await steps();
  } catch (error) {
    // Playwright colours what it says, even where nobody sees colours.
    const reason = [error.message, error.cause?.message].filter(Boolean).join(': ').replace(/\x1b\[\d+m/g, '').trim();
    throw new Error(`FAIL ${name}\n     ${reason.replaceAll('\n', '\n     ')}`);
  }
  passed += 1;
  console.log(`ok   ${name}`);
}

async function assertFirstAnswer() {
  const name = await operations.first().innerText();
  const { answer } = await playOperation(name);
  const { id } = JSON.parse(await editor('variables.json'));
  assert.equal(id, settings.ids[0]);
  assert.equal(answer.errors, undefined, 'the answer has errors');
  assert.equal(answer.data.appointment.id, id);
  // The editor's text is there before anybody sees it.
  await page.getByRole('region', { name: 'Result Window' }).getByText(id).waitFor();
}

/** Changes to an operation as a person does, who reads it before playing it: GraphiQL needs a moment to read it too. */
async function changeTab(index) {
  const tab = operations.nth(index);
  const name = await tab.innerText();
  await tab.getByRole('button', { name }).click();
  await page.waitForTimeout(500);
  return name;
}

async function playOperation(name) {
  // The button is there before the editors are, and until then it does nothing.
  await page.waitForFunction(() => globalThis.__MONACO?.editor.getEditors().length === 4);
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
  return { answer: JSON.parse(await editor('response.json')), ms };
}

/** The whole text of an editor, of which only the lines in sight are in the document. */
async function editor(name) {
  return page.evaluate((end) => {
    const { editor: monaco } = globalThis.__MONACO;
    return monaco.getModels().find(({ uri }) => uri.path.endsWith(end)).getValue();
  }, name);
}

async function ask(query) {
  const response = await fetch(new URL('/graphql', url), {
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
