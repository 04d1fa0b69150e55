/** An animated GIF: one palette for all frames by median cut, then LZW. */

const COLOURS = 128;

/** Return the palette (r, g, b) and for each 15-bit colour its place in it. */
function paletteOf(frames: Uint8ClampedArray[]): { palette: Uint8Array; places: Uint8Array } {
  const counts = new Uint32Array(32768);
  for (const frame of frames) for (let i = 0; i < frame.length; i += 4) counts[key(frame, i)]++;
  const used = Array.from(counts.keys()).filter((k) => counts[k]);
  const part = (k: number, channel: number) => (k >> (10 - 5 * channel)) & 31;
  const boxes: number[][] = [used];
  while (boxes.length < COLOURS) {
    let [best, most, along] = [-1, 0, 0];
    boxes.forEach((box, i) => {
      for (let channel = 0; channel < 3; channel++) {
        const values = box.map((k) => part(k, channel));
        const width = (Math.max(...values) - Math.min(...values)) * Math.sqrt(box.length);
        if (box.length > 1 && width > most) [best, most, along] = [i, width, channel];
      }
    });
    if (best < 0) break;
    const box = boxes[best].sort((a, b) => part(a, along) - part(b, along));
    boxes.splice(best, 1, box.slice(0, box.length >> 1), box.slice(box.length >> 1));
  }
  const palette = new Uint8Array(3 * COLOURS);
  const places = new Uint8Array(32768);
  boxes.forEach((box, i) => {
    const total = box.reduce((sum, k) => sum + counts[k], 0) || 1;
    for (let channel = 0; channel < 3; channel++) {
      const mean = box.reduce((sum, k) => sum + counts[k] * part(k, channel), 0) / total;
      palette[3 * i + channel] = Math.round((mean * 255) / 31);
    }
    for (const k of box) places[k] = i;
  });
  return { palette, places };
}

function key(pixels: Uint8ClampedArray, i: number): number {
  return ((pixels[i] >> 3) << 10) | ((pixels[i + 1] >> 3) << 5) | (pixels[i + 2] >> 3);
}

class Bytes {
  #data = new Uint8Array(1 << 16);
  #length = 0;

  push(...values: number[]): void {
    for (const value of values) {
      if (this.#length === this.#data.length) {
        const larger = new Uint8Array(2 * this.#length);
        larger.set(this.#data);
        this.#data = larger;
      }
      this.#data[this.#length++] = value;
    }
  }

  text(text: string): void {
    for (const letter of text) this.push(letter.charCodeAt(0));
  }

  short(value: number): void {
    this.push(value & 255, value >> 8);
  }

  done(): Uint8Array {
    return this.#data.slice(0, this.#length);
  }
}

/** Lempel, Ziv and Welch with codes of growing width, in blocks of 255 bytes. */
function compress(out: Bytes, indices: Uint8Array, bits: number): void {
  const clear = 1 << bits;
  let width = bits + 1;
  let next = clear + 2;
  let codes = new Map<number, number>();
  let [buffer, held] = [0, 0];
  const block: number[] = [];
  const flush = () => {
    if (block.length) out.push(block.length, ...block.splice(0));
  };
  const emit = (code: number) => {
    buffer |= code << held;
    held += width;
    while (held >= 8) {
      block.push(buffer & 255);
      if (block.length === 255) flush();
      buffer >>>= 8;
      held -= 8;
    }
  };
  out.push(bits);
  emit(clear);
  let prefix = indices[0];
  for (let i = 1; i < indices.length; i++) {
    const pair = (prefix << 8) | indices[i];
    const known = codes.get(pair);
    if (known !== undefined) {
      prefix = known;
      continue;
    }
    emit(prefix);
    if (next < 4096) {
      codes.set(pair, next++);
      if (next > 1 << width && width < 12) width++;
    } else {
      emit(clear);
      codes = new Map();
      next = clear + 2;
      width = bits + 1;
    }
    prefix = indices[i];
  }
  emit(prefix);
  emit(clear + 1);
  if (held) block.push(buffer & 255);
  flush();
  out.push(0);
}

/** Return the file; frames are pixels in rows, four bytes each, `delay` in hundredths of a second. */
export function encodeGif(frames: Uint8ClampedArray[], width: number, height: number, delay: number): Uint8Array {
  const { palette, places } = paletteOf(frames);
  const out = new Bytes();
  out.text('GIF89a');
  out.short(width);
  out.short(height);
  out.push(0xf6, 0, 0, ...palette);
  out.push(0x21, 0xff, 11);
  out.text('NETSCAPE2.0');
  out.push(3, 1, 0, 0, 0);
  frames.forEach((frame, k) => {
    out.push(0x21, 0xf9, 4, 4);
    out.short(k === frames.length - 1 ? 150 : delay);
    out.push(0, 0, 0x2c);
    for (const value of [0, 0, width, height]) out.short(value);
    out.push(0);
    const indices = new Uint8Array(width * height);
    for (let i = 0; i < indices.length; i++) indices[i] = places[key(frame, 4 * i)];
    compress(out, indices, 7);
  });
  out.push(0x3b);
  return out.done();
}
