// Protocol Buffers (proto3) by the generated table, and the forms of "Messages" in PROTOCOL.md.
//
// 64-bit integers are BigInt, bytes are Buffers, enums are numbers. A field that is not there has
// its default, or is undefined where it is optional, in a oneof, or a message.

import { readFileSync } from "node:fs";

const TABLE = JSON.parse(readFileSync(new URL("messages.json", import.meta.url), "utf8"));
const MESSAGES = TABLE.messages;
const ENUMS = TABLE.enums;

export const POSITION_MAX = 2n ** 63n - 1n;
const RANGES_MAX = 1024;
const UNKNOWN_DEPTH_MAX = 100; // as other readers have it: what is nested deeper is an attack

const VARINT = 0;
const FIXED64 = 1;
const LENGTH = 2;
const GROUP = 3;
const GROUP_END = 4;
const FIXED32 = 5;
const WIRE_TYPES = {
  bool: VARINT, uint32: VARINT, uint64: VARINT, int64: VARINT, enum: VARINT,
  string: LENGTH, bytes: LENGTH, message: LENGTH, fixed32: FIXED32, double: FIXED64,
};
const DEFAULTS = {
  bool: false, uint32: 0, uint64: 0n, int64: 0n, enum: 0, string: "", fixed32: 0, double: 0,
};

/** The peer broke the protocol: `code` is the name in the table of "Errors". */
export class ProtocolError extends Error {
  constructor(code, text) {
    super(`${code}: ${text}`);
    this.code = code;
  }
}

const bad = (text) => new ProtocolError("BAD_FRAME", text);

/** The name of an enum's value, without what all of them begin with; undefined if there is none. */
export function nameOf(enumName, number) {
  const names = Object.keys(ENUMS[enumName]);
  const prefix = names.find((name) => ENUMS[enumName][name] === 0).replace(/UNSPECIFIED$/, "");
  return names.find((name) => ENUMS[enumName][name] === number)?.slice(prefix.length);
}

// ---------------------------------------------------------------------------------------- writing

function varint(value) {
  const bytes = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest > 0x7fn; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
  bytes.push(Number(rest));
  return Buffer.from(bytes);
}

function scalar(field, value) {
  if (field.type === "fixed32") {
    const made = Buffer.alloc(4);
    made.writeUInt32LE(value);
    return made;
  }
  if (field.type === "string") {
    const text = Buffer.from(value, "utf8");
    return Buffer.concat([varint(text.length), text]);
  }
  if (WIRE_TYPES[field.type] !== VARINT) throw new TypeError(`a client sends no ${field.type}`);
  return varint(typeof value === "boolean" ? Number(value) : value);
}

/** The bytes of a message; fields that are undefined or have their default are left out. */
export function encode(name, values) {
  const parts = [];
  for (const field of MESSAGES[name]) {
    const value = values[field.name];
    if (value === undefined) continue;
    for (const each of field.repeated ? value : [value]) {
      const plain = !field.repeated && !field.optional && field.oneof === undefined;
      if (plain && each === DEFAULTS[field.type]) continue;
      parts.push(varint((field.number << 3) | WIRE_TYPES[field.type]), scalar(field, each));
    }
  }
  return Buffer.concat(parts);
}

// ---------------------------------------------------------------------------------------- reading

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  get atEnd() {
    return this.at === this.bytes.length;
  }

  take(count) {
    if (count > this.bytes.length - this.at) throw bad("a message is cut short");
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  varint() {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const [byte] = this.take(1);
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw bad("a varint above ten bytes");
  }

  prefixed() {
    const length = this.varint();
    if (length > BigInt(this.bytes.length)) throw bad("a field is cut short");
    return this.take(Number(length));
  }

  tag() {
    const tag = this.varint();
    if (tag > 0xffffffffn || tag < 8n) throw bad("no such field number");
    return { number: Number(tag >> 3n), wireType: Number(tag & 7n) };
  }

  skip({ number, wireType }, depth = 0) {
    if (wireType === VARINT) this.varint();
    else if (wireType === FIXED64) this.take(8);
    else if (wireType === LENGTH) this.prefixed();
    else if (wireType === FIXED32) this.take(4);
    else if (wireType === GROUP && depth < UNKNOWN_DEPTH_MAX) {
      for (let tag = this.tag(); tag.wireType !== GROUP_END; tag = this.tag()) {
        this.skip(tag, depth + 1);
        if (this.atEnd) throw bad("a group without an end");
      }
    } else throw bad(`field ${number} has no wire type of Protocol Buffers`);
  }

  value(field) {
    switch (field.type) {
      case "bool": return this.varint() !== 0n;
      case "uint32": return Number(BigInt.asUintN(32, this.varint()));
      case "enum": return Number(BigInt.asIntN(32, this.varint()));
      case "uint64": return this.varint();
      case "int64": return BigInt.asIntN(64, this.varint());
      case "fixed32": return this.take(4).readUInt32LE();
      case "double": return this.take(8).readDoubleLE();
      case "bytes": return Buffer.from(this.prefixed());
      case "message": return decode(field.of, this.prefixed());
      case "string": {
        try {
          return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.prefixed());
        } catch (error) {
          if (error instanceof ProtocolError) throw error;
          throw bad(`${field.name} is not UTF-8`);
        }
      }
      default: throw new TypeError(`no reader for ${field.type}`);
    }
  }
}

function empty(name) {
  const made = {};
  for (const field of MESSAGES[name]) {
    if (field.repeated) made[field.name] = [];
    else if (field.type === "bytes") made[field.name] = Buffer.alloc(0);
    else if (field.optional || field.oneof !== undefined || field.type === "message") continue;
    else made[field.name] = DEFAULTS[field.type];
  }
  return made;
}

/** Read a message and hold it to the forms of PROTOCOL.md; ProtocolError when it is not of them. */
export function decode(name, bytes) {
  const reader = new Reader(bytes);
  const made = empty(name);
  while (!reader.atEnd) {
    const tag = reader.tag();
    const field = MESSAGES[name].find((each) => each.number === tag.number);
    if (field?.repeated && tag.wireType === LENGTH && WIRE_TYPES[field.type] !== LENGTH) {
      const packed = new Reader(reader.prefixed()); // how proto3 writes repeated numbers
      while (!packed.atEnd) made[field.name].push(packed.value(field));
      continue;
    }
    if (field === undefined || tag.wireType !== WIRE_TYPES[field.type]) {
      reader.skip(tag); // what a newer peer added
      continue;
    }
    const value = reader.value(field);
    if (field.repeated) made[field.name].push(value);
    else made[field.name] = value;
    for (const other of field.oneof === undefined ? [] : MESSAGES[name]) {
      if (other.oneof === field.oneof && other !== field) delete made[other.name];
    }
  }
  for (const field of MESSAGES[name]) check(name, field, made[field.name]);
  return made;
}

// ------------------------------------------------------------------------------------------ forms

const TEXTS = ["client", "server", "text", "reason", "backend", "transport"];
const bound = (low, high) => (value, where) => {
  if (value > high) throw new ProtocolError("OUT_OF_RANGE", `${where} is ${value}`);
  if (value < low) throw bad(`${where} is ${value}`);
};
// The table of "Messages": fields that must be set to anything but 0 or nothing.
const NEEDED = {
  HelloReply: ["instance_id", "chunk_bytes_max", "alignment", "credit", "uploads_max"],
  CreateReply: ["upload_id", "upload", "chunk_bytes"],
  ResumeReply: ["upload", "epoch", "chunk_bytes", "instance_id"],
  Ack: ["instance_id"],
  SyncReply: ["instance_id"],
  Receipt: ["upload_id", "durability", "instance_id"],
  UploadInfo: ["upload_id", "state"],
  Error: ["code"],
  Range: ["length"],
  AttachReply: ["bytes"],
};
const FORMS = {
  chunk_bytes_max: bound(1, 16777216),
  chunk_bytes: bound(1, 16777216),
  alignment: bound(1, 16777216),
  slot_bytes: bound(0, 16777216),
  small_bytes_max: bound(0, 1048576),
  descriptors: bound(0, 1),
};

function check(name, field, value) {
  const where = `${name}.${field.name}`;
  if (value === undefined) return;
  if (NEEDED[name]?.includes(field.name) && (value.length ?? Number(value)) === 0) {
    throw bad(`${where} is needed`);
  }
  if (field.type === "uint64" && field.name !== "upload") {
    for (const each of field.repeated ? value : [value]) bound(0n, POSITION_MAX)(each, where);
  }
  if (field.name === "released" && value.length > 1024) throw bad(`${where} has ${value.length}`);
  if (field.type === "enum" && nameOf(field.of, value) === undefined) throw bad(where);
  if (field.name === "instance_id" && value.length !== 16) throw bad(`${where} is not of 16 bytes`);
  if (field.name === "upload_id" && !/^[0-9a-f]{32}$/.test(value)) throw bad(`${where}: ${value}`);
  if (TEXTS.includes(field.name) && Buffer.byteLength(value) > 1024) throw bad(`${where} is long`);
  if (field.name === "credit") bound(0, 1048576)(value, where);
  else if (field.type !== "message") FORMS[field.name]?.(value, where);
  if (field.name === "features") checkFeatures(value);
  if (name === "ListReply" && value.length > 1024) throw bad(`${where} has ${value.length}`);
  if (field.of === "Range") checkRanges(value, where);
}

function checkFeatures(features) {
  const sizes = features.map((each) => Buffer.byteLength(each));
  if (sizes.length > 32 || sizes.some((size) => size < 1 || size > 64)) throw bad("features");
}

function checkRanges(ranges, where) {
  if (ranges.length > RANGES_MAX) throw bad(`${where} has ${ranges.length} ranges`);
  let end = 0n;
  for (const { offset, length } of ranges) {
    if (length === 0n || offset < end) throw bad(`${where}: ranges empty or out of order`);
    end = offset + length;
    if (end > POSITION_MAX) throw bad(`${where}: a range beyond 2^63-1`);
  }
}
