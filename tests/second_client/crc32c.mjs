// CRC32C as "Checksums" of PROTOCOL.md has it.

const POLYNOMIAL_REFLECTED = 0x82f63b78; // 0x1EDC6F41, its bits the other way round

const TABLE = new Uint32Array(256).map((_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) {
    value = value & 1 ? (value >>> 1) ^ POLYNOMIAL_REFLECTED : value >>> 1;
  }
  return value;
});

/** The checksum of `bytes`, or of what `before` is the checksum of with `bytes` behind it. */
export function crc32c(bytes, before = 0) {
  let value = ~before;
  for (let at = 0; at < bytes.length; at += 1) {
    value = TABLE[(value ^ bytes[at]) & 0xff] ^ (value >>> 8);
  }
  return ~value >>> 0;
}
