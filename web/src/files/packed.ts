/** Blocks of the page: JSON as it is, or deflated and in base64 as the page is built, so that it stays small. */

export function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

export function toBase64(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

export async function opened<T>(block: string): Promise<T> {
  if (block.startsWith('{')) return JSON.parse(block) as T;
  const stream = new Blob([bytesOf(block)]).stream().pipeThrough(new DecompressionStream('deflate'));
  return JSON.parse(await new Response(stream).text()) as T;
}
