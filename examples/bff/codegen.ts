// Types for the queries in `src`, generated from the gateway's schema: `npm run generate`.
// A query that does not fit the schema fails here, before anything is deployed.
import type { CodegenConfig } from '@graphql-codegen/cli';

const config: CodegenConfig = {
  schema: '../../schema.graphql',
  documents: 'src/*.ts',
  generates: {
    'src/gql/': {
      preset: 'client',
      presetConfig: { fragmentMasking: false },
      config: {
        // The scalars of the schema are strings in JSON. A new one fails the generation until it has a type here.
        scalars: { UUID: 'string', DateTime: 'string', Date: 'string' },
        strictScalars: true,
        useTypeImports: true,
      },
    },
  },
  // The imports of the generated files need the extensions of ECMAScript modules.
  importExtension: '.js',
};

export default config;
