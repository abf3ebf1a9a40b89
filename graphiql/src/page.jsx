import { useGraphiQL, useGraphiQLActions, useMonaco } from '@graphiql/react';
import { GraphiQL } from 'graphiql';
import { useEffect, useMemo } from 'react';
import { examples } from './examples.js';
import { fetcher, PASTE_HERE } from './fetcher.js';
import logo from './logo.svg';
import { preferences } from './preferences.js';

const storage = preferences();
const pretty = (value) => JSON.stringify(value, null, 2);

export function Page({ settings: { sandbox, token, ids, endpoint } }) {
  // Another fetcher would make GraphiQL load the schema again.
  const gateway = useMemo(() => fetcher(endpoint), [endpoint]);
  const headers = pretty({ Authorization: `Bearer ${token ?? PASTE_HERE}` });
  const tabs = examples.map(({ query, variables }) => ({
    query: query.trim(),
    variables: pretty(variables(ids)),
    headers,
  }));

  return (
    <GraphiQL
      fetcher={gateway}
      storage={storage}
      shouldPersistHeaders={false}
      showPersistHeadersSettings={false}
      defaultTabs={tabs}
      // The tabs alone fill the editors only when somebody changes to one.
      initialQuery={tabs[0].query}
      initialVariables={tabs[0].variables}
      initialHeaders={headers}
      // For the tabs that somebody opens.
      defaultHeaders={headers}
      defaultQuery=""
      // Who has yet to paste a token sees at once where.
      defaultEditorToolsVisibility={token ? 'variables' : 'headers'}
    >
      <GraphiQL.Logo>
        <div className="brand">
          {sandbox && (
            <span className="badge" title="The gateway serves its built-in sandbox: every person in it is invented.">
              Sandbox<span className="wide">: made-up data</span>
            </span>
          )}
          <img src={logo} alt="" width="22" height="22" />
          <h1 className="wide">Appointments Gateway</h1>
        </div>
      </GraphiQL.Logo>
      <WrappedLines />
      <OpenTab />
    </GraphiQL>
  );
}

/** GraphiQL lets long lines run out of sight, and on a small screen a UUID is a long line. */
function WrappedLines() {
  const monaco = useMonaco((state) => state.monaco);
  useEffect(() => {
    monaco?.editor.getEditors().forEach((editor) => editor.updateOptions({ wordWrap: 'on' }));
  }, [monaco]);
  return null;
}

/** Stops what the tab before played, and brings the open one in sight. GraphiQL does neither for a new tab. */
function OpenTab() {
  const { stop } = useGraphiQLActions();
  const index = useGraphiQL((state) => state.activeTabIndex);
  const id = useGraphiQL((state) => state.tabs[state.activeTabIndex].id);
  useEffect(() => {
    // Its next result would be shown here.
    stop();
    // The tabs may have to scroll, and the new one is the last.
    document.getElementById(`graphiql-session-tab-${index}`)?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    // The index alone changes where an earlier tab is closed or moved.
  }, [id]);
  return null;
}
