/**
 * What the gateway tells its page: the address of the GraphQL endpoint, relative to the page, whether it stands before its
 * own sandbox and, only then, a token that works there and a few ids that exist there.
 */
export async function loadSettings() {
  const response = await fetch('graphiql.json', { headers: { Accept: 'application/json' } });
  if (!response.ok) throw new Error(`the gateway answers ${response.status} when asked for graphiql.json.`);
  return response.json();
}
