const KEPT = ['theme', 'visiblePlugin', 'docExplorerFlex', 'editorFlex', 'secondaryEditorFlex'].map(
  (name) => `graphiql:${name}`,
);

/**
 * GraphiQL's storage, split in two: how the page looks stays in the browser, all else only as long as the page is open.
 *
 * Operations and variables may name people and headers hold a token: none of these belong on a disk. And since no tabs
 * are ever restored, every visit starts with the examples of this version and, on the sandbox, with the token and ids
 * of this sandbox, whatever an older version left in the browser.
 */
export function preferences() {
  const memory = new Map();
  return {
    getItem: (key) => (KEPT.includes(key) ? localStorage.getItem(key) : (memory.get(key) ?? null)),
    setItem: (key, value) => (KEPT.includes(key) ? localStorage.setItem(key, value) : memory.set(key, value)),
    removeItem: (key) => (KEPT.includes(key) ? localStorage.removeItem(key) : memory.delete(key)),
    clear() {
      memory.clear();
      KEPT.forEach((key) => localStorage.removeItem(key));
    },
    get length() {
      return memory.size + KEPT.filter((key) => localStorage.getItem(key) !== null).length;
    },
  };
}
