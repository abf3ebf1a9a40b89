/**
 * The events of a body of the type `text/event-stream`, each with its type and its data, as the HTML standard reads it.
 * It knows neither ids nor reconnection: a subscription starts anew where it is played anew. Comments, by which the
 * gateway keeps a quiet connection open, are lines of no field.
 */
export async function* events(body) {
  let type = 'message';
  let data = [];
  for await (const line of lines(body)) {
    if (line === '') {
      if (data.length > 0) yield { type, data: data.join('\n') };
      type = 'message';
      data = [];
      continue;
    }
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === 'event') type = value;
    if (field === 'data') data.push(value);
  }
}

async function* lines(body) {
  // Not every browser can iterate over a stream.
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    // The line feed of a carriage return at the end may be still to come.
    const parts = (rest + value).split(/\r\n|\n|\r(?!$)/);
    rest = parts.pop();
    yield* parts;
  }
}
