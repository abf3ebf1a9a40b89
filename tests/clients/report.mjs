// What the programs of this folder share: checks that stand on one another and say what they found.

let passed = 0;

/** Takes one step and says so. The first that fails is the last, for the others stand on it. */
export async function check(name, step) {
  try {
    await step();
  } catch (error) {
    // Playwright colours what it says, even where nobody sees colours.
    const reason = [error.message, error.cause?.message].filter(Boolean).join(': ').replace(/\x1b\[\d+m/g, '').trim();
    throw new Error(`FAIL ${name}\n     ${reason.replaceAll('\n', '\n     ')}`);
  }
  passed += 1;
  console.log(`ok   ${name}`);
}

/** To be called where every check has been passed. */
export function finish() {
  console.log(`${passed} of ${passed} checks ok`);
}
