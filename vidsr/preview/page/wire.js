// Takes apart what the server sends.

const text = new TextDecoder();

/**
 * A binary message: length of the header, header as JSON, parts.
 * @param {Uint8Array} bytes
 * @returns {{header: object, parts: Uint8Array[]}}
 */
export function unpacked(bytes) {
  const length = little32(bytes, 0);
  const header = JSON.parse(text.decode(bytes.subarray(4, 4 + length)));
  const parts = [];
  let at = 4 + length;
  for (const size of header.parts) {
    if (at + size > bytes.length) throw new RangeError("a message that is cut off");
    parts.push(bytes.subarray(at, at + size));
    at += size;
  }
  return { header, parts };
}

/**
 * The messages in the answer to a poll: kind (0 text, 1 binary), length, body; one behind the other.
 * @param {Uint8Array} bytes
 * @returns {Generator<string | Uint8Array>}
 */
export function* messages(bytes) {
  for (let at = 0; at + 5 <= bytes.length; ) {
    const end = at + 5 + little32(bytes, at + 1);
    const body = bytes.subarray(at + 5, end);
    yield bytes[at] === 0 ? text.decode(body) : body;
    at = end;
  }
}

function little32(bytes, at) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(at, true);
}
