import { licences } from './licences.js';

// Each file that the licence report speaks of is one that the page or one of its workers is made of.
const report = licences('THIRD-PARTY-LICENSES.txt');

export default {
  // Relative addresses, so that a proxy may serve the page under any path.
  base: './',
  // No plugin for React: the compiler that Vite brings along already knows JSX.
  esbuild: { jsx: 'automatic' },
  plugins: [report.collect(), report.emit()],
  worker: {
    // GraphiQL's workers load parts of themselves on demand, which only modules can.
    format: 'es',
    plugins: () => [report.collect()],
  },
  build: {
    // Every browser that GraphiQL runs in preloads modules by itself.
    modulePreload: { polyfill: false },
    // Monaco is one chunk of 3 MB by its nature; a warning on every build would only hide others.
    chunkSizeWarningLimit: 4096,
    rollupOptions: {
      // Marks for servers that render React, of which dozens of modules carry one, mean nothing to a bundle.
      onwarn: (warning, print) => warning.code === 'MODULE_LEVEL_DIRECTIVE' || print(warning),
    },
  },
};
