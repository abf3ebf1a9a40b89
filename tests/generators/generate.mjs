// Lets each generator make its manifest from the schema, as an app does.
// Usage: node generate.mjs SCHEMA DIRECTORY [FIELD of a claimant]
//
// DIRECTORY/manifests receives the manifests, and DIRECTORY/relay and DIRECTORY/codegen the modules that an app imports.
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { documents } from './documents.mjs';

const [schemaFile, directory] = process.argv.slice(2, 4).map((it) => resolve(it));
const field = process.argv[4];
if (!directory) {
  console.error('Usage: node generate.mjs SCHEMA DIRECTORY [FIELD]');
  process.exit(2);
}
const packages = join(dirname(fileURLToPath(import.meta.url)), 'node_modules');
mkdirSync(join(directory, 'manifests'), { recursive: true });
symlinkSync(packages, join(directory, 'node_modules'));
writeFileSync(join(directory, 'package.json'), '{ "type": "module" }');
copyFileSync(schemaFile, join(directory, 'schema.graphql'));

/** Writes the sources of an app, and runs its generator. */
async function generate(app, sources, program, ...options) {
  for (const [name, text] of Object.entries(sources)) {
    const file = join(directory, app, name);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, typeof text === 'string' ? text : JSON.stringify(text));
  }
  await promisify(execFile)(join(packages, '.bin', program), options, { cwd: join(directory, app) });
}

// Relay adds to a file that exists.
writeFileSync(join(directory, 'manifests/relay.json'), '{}');

await Promise.all([
  generate(
    'apollo',
    {
      'src/appointments.js': `import { gql } from '@apollo/client';\nexport const all = [${documents('Apollo', field).map((it) => `gql\`${it}\``)}];`,
      'config.json': { documents: ['src/**/*.js'], output: '../manifests/apollo.json' },
    },
    'generate-persisted-query-manifest',
    '--config',
    'config.json',
  ),
  generate(
    'relay',
    {
      // Relay wants names that begin with that of their module.
      'src/Relay.js': `import { graphql } from 'relay-runtime';\n${documents('Relay', field).map((it) => `graphql\`${it}\`;`).join('\n')}`,
      'relay.config.json': {
        src: './src',
        schema: '../schema.graphql',
        language: 'javascript',
        eagerEsModules: true,
        persistConfig: { file: '../manifests/relay.json', algorithm: 'MD5' },
      },
    },
    'relay-compiler',
    'relay.config.json',
  ),
  generate(
    'codegen',
    {
      'src/appointments.graphql': documents('Codegen', field).join('\n'),
      'codegen.json': {
        schema: '../schema.graphql',
        documents: 'src/**/*.graphql',
        generates: {
          './generated/': { preset: 'client', presetConfig: { persistedDocuments: { hashAlgorithm: 'sha256' } } },
        },
      },
    },
    'graphql-codegen',
    '--config',
    'codegen.json',
  ),
]);
copyFileSync(
  join(directory, 'codegen/generated/persisted-documents.json'),
  join(directory, 'manifests/codegen.json'),
);
