#!/usr/bin/env node
// Hold the second client's reading against the protocol's vectors: node vectors.mjs FILE...
//
// Every vector that a server sends is received whole and byte by byte, and every frame that a
// client sends is held against the checks of its header. Prints the number of vectors it took, one
// line for each that came out otherwise, and ends with 1 if there are any.

import { readFileSync } from "node:fs";

import { HEADER_BYTES, Receiver, TYPE, decodeHeader } from "./frames.mjs";
import { ProtocolError, nameOf } from "./messages.mjs";

// A header's numbers go up to 2^64-1, which a number of JavaScript does not hold.
const quoted = (text) => text.replaceAll(/"(cookie|upload)": (\d+)/g, '"$1": "$2"');
const vectors = process.argv.slice(2)
  .flatMap((path) => JSON.parse(quoted(readFileSync(path, "utf8"))));
const byName = new Map(vectors.map((vector) => [vector.name, vector]));
const bytesOf = (vector) => Buffer.from(vector.frame.join("").replaceAll(" ", ""), "hex");

/** A message as Protocol Buffers' JSON has it, as far as server's frames need it. */
function json(message) {
  const made = {};
  for (const [name, value] of Object.entries(message)) {
    const one = (each) => {
      if (typeof each === "bigint") return String(each);
      if (Buffer.isBuffer(each)) return each.toString("base64");
      return typeof each === "object" ? json(each) : each;
    };
    const enumName = { code: "ErrorCode", durability: "Durability", state: "UploadState" }[name];
    const prefix = { ErrorCode: "ERROR_CODE_", UploadState: "UPLOAD_STATE_" }[enumName];
    if (enumName) made[name] = `${prefix ?? "DURABILITY_"}${nameOf(enumName, value)}`;
    else made[name] = Array.isArray(value) ? value.map(one) : one(value);
  }
  return made;
}

/** Whether all that is expected is there; what is not mentioned has to be a default. */
function agrees(expected, found) {
  if (typeof found !== "object") return expected === found;
  const names = new Set([...Object.keys(expected), ...Object.keys(found)]);
  return [...names].every((name) => {
    if (expected[name] !== undefined) return agrees(expected[name], found[name]);
    return [0, "0", "", false].includes(found[name]) || found[name].length === 0;
  });
}

function receive(vector, piece) {
  const receiver = new Receiver();
  for (const name of vector.after) {
    const before = byName.get(name);
    if (before.direction === "C") receiver.sent(decodeHeader(bytesOf(before).subarray(0, 64)));
    else for (const _ of receiver.receive(bytesOf(before)));
  }
  const bytes = bytesOf(vector);
  const frames = [];
  for (let at = 0; at < bytes.length; at += piece) {
    frames.push(...receiver.receive(bytes.subarray(at, at + piece)));
  }
  if (vector.end) receiver.end();
  return frames;
}

/** Run one vector; the result is what is wrong with it, or null. */
function run(vector, piece) {
  let found;
  try {
    found = vector.direction === "S"
      ? receive(vector, piece)[0]
      : decodeHeader(bytesOf(vector).subarray(0, HEADER_BYTES));
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    return error.code === vector.error ? null : `${error.message}, expected ${vector.error}`;
  }
  if (vector.error) return `accepted, expected ${vector.error}`;
  const { event } = vector;
  const same = found.type === TYPE[event.type] && found.upload === BigInt(event.upload)
    && found.cookie === BigInt(event.cookie ?? 0)
    && (vector.direction === "C" || agrees(event.message, json(found.message)));
  return same ? null : `read as ${found.type.name} ${JSON.stringify(json(found.message ?? {}))}`;
}

// What a client sends is read here as far as its header goes: the rest is the server's to refuse.
const HEADER_SECTIONS = ["Header", "Frames"];
const taken = vectors.filter((vector) => vector.direction === "S"
  || (vector.event && vector.event !== "closed")
  || (HEADER_SECTIONS.includes(vector.section) && vector.error !== "OUT_OF_ORDER"
    && vector.name !== "data-above-what-was-agreed"));
let wrong = 0;
for (const vector of taken) {
  for (const piece of [1 << 20, 1]) {
    const said = run(vector, piece);
    if (said === null) continue;
    wrong += 1;
    process.stdout.write(`${vector.name}: ${said}\n`);
  }
}
process.stdout.write(`${taken.length} vectors\n`);
process.exitCode = wrong ? 1 : 0;
