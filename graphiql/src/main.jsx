import '@graphiql/react/style.css';
import '@graphiql/plugin-doc-explorer/style.css';
import '@graphiql/plugin-history/style.css';
import 'graphiql/graphiql.css';
import './page.css';

import 'graphiql/setup-workers/vite';
import { createRoot } from 'react-dom/client';
import { Page } from './page.jsx';
import { loadSettings } from './settings.js';

const place = document.getElementById('page');

// Monaco measures its font once, when it opens: a font that came later would leave the cursor beside the letters.
const font = document.fonts.load('15px "Fira Code"').catch(() => 'Any other will do.');

try {
  const settings = await loadSettings();
  await font;
  createRoot(place).render(<Page settings={settings} />);
} catch (error) {
  place.firstElementChild.textContent = `This page could not be opened: ${error.message}`;
}
