// Headers and the order of frames, as a client receives them: "Frames", "Phases" and "Requests and
// replies" of PROTOCOL.md. Nothing here touches a socket.

import { crc32c } from "./crc32c.mjs";
import { ProtocolError, decode } from "./messages.mjs";

const MAGIC = 0x4f495255;
const VERSION = 1;
export const HEADER_BYTES = 64;
const CONTROL_BYTES_MAX = 65536;
const PUT_BYTES_MAX = 1052672;
const DATA_BYTES_MAX = 16777216;
const OFFSET_MAX = 2n ** 63n - 1n;
const REPLY = 1;
const MORE = 2;

const NO = 0; // the field is 0
const SET = 1; // the field is not 0
const ANY = 2;

// type: name, message of the reply or notice, flags, cookie, upload; numbers from 1 on
const ROWS = [
  ["HELLO", "HelloReply", REPLY, SET, NO],
  ["CREATE", "CreateReply", REPLY, SET, NO],
  ["RESUME", "ResumeReply", REPLY, SET, NO],
  ["DATA", null, MORE, NO, SET],
  ["ACK", "Ack", 0, NO, ANY],
  ["SYNC", "SyncReply", REPLY, SET, SET],
  ["COMMIT", "Receipt", REPLY, SET, SET],
  ["ABORT", "AbortReply", REPLY, SET, ANY],
  ["STAT", "StatReply", REPLY, SET, NO],
  ["LIST", "ListReply", REPLY, SET, NO],
  ["PING", "PingReply", REPLY, SET, NO],
  ["ERROR", "Error", 0, ANY, ANY],
  ["SHUTDOWN", "Shutdown", 0, NO, NO],
  ["PAGES", null, 0, NO, SET],
  ["ATTACH", "AttachReply", REPLY, SET, NO],
  ["PLACED", null, 0, NO, SET],
  ["PUT", "Receipt", REPLY, SET, NO],
];
const TYPES = ROWS.map(([name, message, flags, cookie, upload], index) => ({
  name, message, flags, cookie, upload, number: index + 1,
}));
export const TYPE = Object.fromEntries(TYPES.map((type) => [type.name, type]));

export function encodeHeader(type, { cookie = 0n, upload = 0n, offset = 0n, length, crc }) {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(MAGIC, 0);
  header.writeUInt8(VERSION, 4);
  header.writeUInt8(type.number, 5);
  header.writeBigUInt64LE(cookie, 8);
  header.writeBigUInt64LE(upload, 16);
  header.writeBigUInt64LE(offset, 24);
  header.writeUInt32LE(length, 32);
  header.writeUInt32LE(crc, 36);
  header.writeUInt32LE(crc32c(header.subarray(0, 60)), 60);
  return header;
}

/** A whole frame with a control payload. */
export function encodeControl(type, payload, { cookie = 0n, upload = 0n }) {
  const fields = { cookie, upload, length: payload.length, crc: crc32c(payload) };
  return Buffer.concat([encodeHeader(type, fields), payload]);
}

const fits = (rule, value) => rule === ANY || (rule === SET) === (value !== 0n);

/** Read a header and make the checks 1 to 7 of "Header", in their order. */
export function decodeHeader(header) {
  const refuse = (code, text) => { throw new ProtocolError(code, text); };
  if (header.readUInt32LE(0) !== MAGIC) refuse("BAD_FRAME", "the magic is another");
  if (header.readUInt32LE(60) !== crc32c(header.subarray(0, 60))) {
    refuse("BAD_CHECKSUM", "a header differs from its checksum");
  }
  if (header.readUInt8(4) !== VERSION) refuse("UNSUPPORTED_VERSION", "another version");
  if (header.subarray(40, 60).some((byte) => byte !== 0)) refuse("BAD_FRAME", "reserved bytes");
  const type = TYPES[header.readUInt8(5) - 1] ?? refuse("UNSUPPORTED", "no such type");
  const made = {
    type,
    flags: header.readUInt16LE(6),
    cookie: header.readBigUInt64LE(8),
    upload: header.readBigUInt64LE(16),
    offset: header.readBigUInt64LE(24),
    length: header.readUInt32LE(32),
    crc: header.readUInt32LE(36),
  };
  if (made.flags & ~type.flags) refuse("BAD_FRAME", `flags of a ${type.name}`);
  if (!fits(type.cookie, made.cookie)) refuse("BAD_FRAME", `the cookie of a ${type.name}`);
  if (!fits(type.upload, made.upload)) refuse("BAD_FRAME", `the upload of a ${type.name}`);
  if (type === TYPE.DATA) {
    if (made.length === 0) refuse("BAD_FRAME", "an empty chunk");
    if (made.length > DATA_BYTES_MAX) refuse("TOO_LARGE", "a chunk");
    if (made.offset + BigInt(made.length) > OFFSET_MAX) refuse("OUT_OF_RANGE", "a chunk");
  } else {
    if (made.offset !== 0n) refuse("BAD_FRAME", `a ${type.name} with an offset`);
    const isPut = type === TYPE.PUT && made.flags === 0;
    if (made.length > (isPut ? PUT_BYTES_MAX : CONTROL_BYTES_MAX)) {
      refuse("TOO_LARGE", `a ${type.name}`);
    }
  }
  return made;
}

/** What a client takes from a server: feed it bytes, it yields frames; ProtocolError ends it. */
export class Receiver {
  #buffer = Buffer.alloc(0);
  #header = null;
  #unanswered = new Map(); // cookie: { type, upload }
  state = "NEW";

  /** Tell what the client sent: a reply is held against it. */
  sent({ type, cookie, upload }) {
    if (type === TYPE.HELLO) this.state = "GREETED";
    if (cookie !== 0n) this.#unanswered.set(cookie, { type, upload });
  }

  get unanswered() {
    return this.#unanswered.size;
  }

  *receive(bytes) {
    this.#buffer = Buffer.concat([this.#buffer, bytes]);
    for (;;) {
      if (this.state === "CLOSED") return; // nothing counts after the ERROR that ends the session
      if (this.#header === null) {
        if (this.#buffer.length < HEADER_BYTES) return;
        this.#header = decodeHeader(this.#take(HEADER_BYTES));
        this.#checkOrder(this.#header);
      }
      if (this.#buffer.length < this.#header.length) return;
      const header = this.#header;
      this.#header = null;
      yield this.#frame(header, this.#take(header.length));
    }
  }

  /** The stream is over. Anywhere but between two frames that is an error. */
  end() {
    if (this.state !== "CLOSED" && (this.#header !== null || this.#buffer.length > 0)) {
      throw new ProtocolError("BAD_FRAME", "the stream ended in the middle of a frame");
    }
    this.state = "CLOSED";
  }

  #take(count) {
    const taken = this.#buffer.subarray(0, count);
    this.#buffer = this.#buffer.subarray(count);
    return taken;
  }

  #checkOrder({ type, flags, cookie, upload }) {
    const refuse = (text) => { throw new ProtocolError("OUT_OF_ORDER", text); };
    const isReply = (flags & REPLY) !== 0;
    const isNotice = type === TYPE.ACK || type === TYPE.ERROR || type === TYPE.SHUTDOWN;
    if (!isReply && !isNotice) refuse(`a server sends no ${type.name}`);
    const allowed = {
      NEW: type === TYPE.ERROR && cookie === 0n,
      GREETED: type === TYPE.HELLO || type === TYPE.ERROR,
      OPEN: true,
      CLOSING: true,
    };
    if (!allowed[this.state]) refuse(`${type.name} in ${this.state}`);
    if (cookie === 0n) return;
    const asked = this.#unanswered.get(cookie);
    if (asked === undefined) refuse(`${type.name} answers nothing`);
    if (type !== TYPE.ERROR && type !== asked.type) refuse(`${type.name} for ${asked.type.name}`);
    if (upload !== asked.upload) refuse("a reply about another upload");
  }

  #frame(header, payload) {
    if (crc32c(payload) !== header.crc) {
      throw new ProtocolError("BAD_CHECKSUM", `a ${header.type.name} differs from its checksum`);
    }
    const message = decode(header.type.message, payload);
    const { type, cookie, upload } = header;
    this.#unanswered.delete(cookie);
    const ends = type === TYPE.ERROR && (this.state !== "OPEN" && this.state !== "CLOSING"
      || (cookie === 0n && upload === 0n));
    if (ends) this.state = "CLOSED";
    else if (type === TYPE.HELLO) this.state = "OPEN";
    else if (type === TYPE.SHUTDOWN) this.state = "CLOSING";
    return { type, cookie, upload, message, ends };
  }
}
