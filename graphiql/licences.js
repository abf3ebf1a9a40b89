// A Vite plugin in two halves: `collect` notes which packages are bundled (once in the page's own build, once in each
// worker's), `emit` writes their licence texts beside the page, since a minified bundle no longer carries them.
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

// Packages published without the text of their licence, and one of the same authors that carries it.
const SAME_AUTHORS = {
  '@graphiql/plugin-doc-explorer': 'graphiql',
  '@graphiql/plugin-history': 'graphiql',
  'react-compiler-runtime': 'react',
  'react-remove-scroll-bar': 'react-remove-scroll',
};

export function licences(fileName) {
  const folders = new Set();
  const note = (file) => {
    // From the first slash on: helpers that the bundler made up itself begin with a mark of theirs.
    const folder = /\/.*\/node_modules\/(@[^/]+\/)?[^/]+(?=\/)/.exec(file)?.[0];
    if (folder) folders.add(folder);
  };

  return {
    collect: () => ({
      name: 'collect-licences',
      // Every module read, not only those with code left after tree shaking: style sheets count as well.
      buildEnd() {
        for (const id of this.getModuleIds()) note(id);
      },
    }),
    emit: () => ({
      name: 'emit-licences',
      generateBundle(_options, bundle) {
        // Fonts are named in style sheets only, so no module stands for them.
        for (const file of Object.values(bundle)) {
          file.originalFileNames?.forEach((name) => note(resolve(name)));
        }
        this.emitFile({ type: 'asset', fileName, source: print([...folders].map(read)) });
      },
    }),
  };
}

function read(folder) {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const texts = readdirSync(folder)
    .filter((file) => /^(licen[cs]e|copying|notice|third-?party)/i.test(file))
    .sort()
    .map((file) => readFileSync(join(folder, file), 'utf8').replaceAll('\r\n', '\n').trim());
  if (texts.length === 0) {
    if (!SAME_AUTHORS[name]) throw new Error(`${name} comes without the text of its licence`);
    texts.push(`The same text as that of ${SAME_AUTHORS[name]}.`);
  }
  return { title: `${name} ${version} (${license})`, texts };
}

function print(packages) {
  const sections = packages
    .sort((one, other) => (one.title < other.title ? -1 : 1))
    .map(({ title, texts }) => [title, '='.repeat(title.length), ...texts].join('\n\n'));
  return `This page is made of the packages below, each under its own licence.\n\n\n${sections.join('\n\n\n')}\n`;
}
