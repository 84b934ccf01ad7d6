#!/usr/bin/env node
// Upload a file to uringd and print the Receipt as JSON: a second client, for the protocol's sake.
//
// node put.mjs [--resume ID] [--overwrite] FILE HOST PORT NAME
// node put.mjs [--resume ID] [--overwrite] FILE unix:///PATH NAME
//
// Written from protos/PROTOCOL.md and protos/uringd/v1/uringd.proto alone. Sends no token, uses
// one session, and does not connect again by itself: when the connection is lost it prints the id
// that --resume takes. Ends with 0 when the Receipt is there and agrees with the file, 2 for wrong
// usage, 3 when the server refuses or breaks the protocol, 4 when it cannot be reached or the
// connection is lost, 5 for trouble with the file.

import { randomBytes } from "node:crypto";
import { open } from "node:fs/promises";
import { setTimeout } from "node:timers/promises";
import { parseArgs } from "node:util";

import { crc32c } from "./crc32c.mjs";
import { ProtocolError, nameOf } from "./messages.mjs";
import { Lost, Refused, Session } from "./session.mjs";

const USAGE = "usage: put.mjs [--resume ID] [--overwrite] FILE (HOST PORT|unix:///PATH) NAME";
const COMMITS_MAX = 3; // a stream that damages the same bytes three times damages them always
const BUSY_MAX = 50; // asks of a RESUME that is answered with BUSY
const BUSY_WAIT_MS = 200;
const LEFT_ALONE = ["FENCED", "NOT_FOUND"]; // the upload is another's, or is not

class Usage extends Error {}
class BadFile extends Error {}

/** The file, read at positions; its size is what it was when it was opened. */
class Source {
  static async open(path) {
    const source = new Source();
    source.handle = await open(path).catch((error) => { throw new BadFile(error.message); });
    source.size = (await source.handle.stat()).size;
    return source;
  }

  async read(offset, length) {
    const chunk = Buffer.alloc(length);
    for (let done = 0; done < length;) {
      const { bytesRead } = await this.handle.read(chunk, done, length - done, offset + done);
      if (bytesRead === 0) throw new BadFile("the file has become shorter while it was read");
      done += bytesRead;
    }
    return chunk;
  }
}

/** An upload of this session: its handle, how to cut it, and what of it need not be sent. */
class Upload {
  sentBytes = 0;
  crc = 0; // of the file as far as it was walked

  constructor(session, source, reply) {
    Object.assign(this, { session, source, handle: reply.upload });
    const { alignment } = session.hello;
    this.chunkBytes = reply.chunk_bytes - (reply.chunk_bytes % alignment);
    if (this.chunkBytes === 0) {
      throw new ProtocolError("BAD_FRAME", "chunk_bytes is below the alignment: no chunk fits");
    }
    this.durable = (reply.durable ?? []).map((range) => ({
      begin: Number(range.offset), end: Number(range.offset + range.length), crc: range.crc32c,
    }));
    if (this.durable.some(({ end }) => end > source.size)) {
      throw new BadFile("the upload has more bytes than the file: it is another file");
    }
  }

  /** Walk the file once: send what is not durable, hold the rest against its checksums. */
  async fill() {
    let at = 0;
    for (const range of [...this.durable, { begin: this.source.size, end: this.source.size }]) {
      await this.send(at, range.begin, true);
      await this.skip(range);
      at = range.end;
    }
  }

  async send(begin, end, first) {
    for (let at = begin; at < end; at += this.chunkBytes) {
      const chunk = await this.source.read(at, Math.min(this.chunkBytes, end - at));
      if (first) this.crc = crc32c(chunk, this.crc);
      await this.session.data(this.handle, at, chunk);
      this.sentBytes += chunk.length;
      this.takeNotices();
    }
  }

  async skip({ begin, end, crc }) {
    let found = 0;
    for (let at = begin; at < end; at += this.chunkBytes) {
      const chunk = await this.source.read(at, Math.min(this.chunkBytes, end - at));
      found = crc32c(chunk, found);
      this.crc = crc32c(chunk, this.crc);
    }
    if (crc !== undefined && crc !== found) {
      throw new BadFile("the upload has other bytes than the file: it is another file");
    }
  }

  /** A chunk refused for now is listed by COMMIT's INCOMPLETE; any other notice is the end. */
  takeNotices() {
    for (const notice of this.session.notices.splice(0)) if (!notice.retryable) throw notice;
  }

  async commit() {
    const values = { size: this.source.size, crc32c: this.crc };
    for (let asked = 1; ; asked += 1) {
      try {
        return await this.session.ask("COMMIT", "Commit", values, this.handle);
      } catch (error) {
        const again = error.code === "INCOMPLETE" && asked < COMMITS_MAX;
        if (!(error instanceof Refused)) throw error;
        this.takeNotices();
        if (!again) throw error;
        for (const { offset, length } of error.missing) {
          await this.send(Number(offset), Number(offset + length), false);
        }
      }
    }
  }

  /** Bytes that were written in another life of the server may be gone: a SYNC tells. */
  async checkInstance() {
    const before = this.session.hello.instance_id.toString("hex");
    if (this.session.instanceId !== before) await this.session.ask("SYNC", "Sync", {}, this.handle);
  }

  async abort() {
    await this.session.ask("ABORT", "Abort", {}, this.handle).catch(() => {});
  }
}

async function create(session, values) {
  return await session.ask("CREATE", "Create", values);
}

async function resume(session, id, name, source) {
  for (let asked = 1; ; asked += 1) {
    try {
      const reply = await session.ask("RESUME", "Resume", { upload_id: id });
      if (reply.name !== name) throw new BadFile(`the upload is that of ${reply.name}`);
      if (reply.size !== undefined && Number(reply.size) !== source.size) {
        throw new BadFile(`the upload is of ${reply.size} bytes, the file of ${source.size}`);
      }
      return reply;
    } catch (error) {
      if (error.code !== "BUSY" || asked === BUSY_MAX) throw error;
      await setTimeout(BUSY_WAIT_MS);
    }
  }
}

async function put(asked) {
  const { path, where, name, id, resuming, overwrite } = asked;
  const source = await Source.open(path);
  const session = await Session.open(where, ["resume"]);
  asked.known = session.has("resume");
  try {
    const reply = resuming
      ? await resume(session, id, name, source)
      : await create(session, { name, size: source.size, overwrite, upload_id: id });
    const upload = new Upload(session, source, reply);
    try {
      await upload.fill();
      await upload.checkInstance();
      const receipt = await upload.commit();
      if (Number(receipt.size) !== source.size || receipt.crc32c !== upload.crc) {
        throw new ProtocolError("CONTENT_MISMATCH", "the Receipt is not that of the file");
      }
      return { ...receipt, sent_bytes: upload.sentBytes };
    } catch (error) {
      const ours = error instanceof Refused && !error.retryable && !LEFT_ALONE.includes(error.code);
      if (ours) await upload.abort();
      throw error;
    }
  } finally {
    session.close();
    await source.handle.close();
  }
}

function parse() {
  const options = { resume: { type: "string" }, overwrite: { type: "boolean", default: false } };
  let parsed;
  try {
    parsed = parseArgs({ options, allowPositionals: true });
  } catch (error) {
    throw new Usage(`${error.message}; ${USAGE}`);
  }
  const { values, positionals: [path, address, ...rest] } = parsed;
  const isUnix = address?.startsWith("unix://") ?? false;
  if (rest.length !== (isUnix ? 1 : 2)) throw new Usage(USAGE);
  const where = isUnix
    ? { path: address.slice("unix://".length) }
    : { host: address, port: Number(rest[0]) };
  if (!isUnix && !(where.port > 0 && where.port < 65536)) throw new Usage(USAGE);
  const id = values.resume ?? randomBytes(16).toString("hex");
  const resuming = values.resume !== undefined;
  return { path, where, name: rest.at(-1), id, resuming, overwrite: values.overwrite };
}

function plain(_key, value) {
  if (typeof value === "bigint") return Number(value);
  return value?.type === "Buffer" ? Buffer.from(value.data).toString("hex") : value;
}

const EXITS = [[Usage, 2], [Refused, 3], [ProtocolError, 3], [Lost, 4], [BadFile, 5]];

async function main() {
  let asked;
  try {
    asked = parse();
    const receipt = await put(asked);
    receipt.durability = nameOf("Durability", receipt.durability);
    process.stdout.write(`${JSON.stringify(receipt, plain)}\n`);
    return 0;
  } catch (error) {
    const exit = EXITS.find(([kind]) => error instanceof kind);
    if (exit === undefined) throw error;
    const code = error instanceof Refused ? `${error.code}: ` : "";
    const hint = error instanceof Lost && asked.known ? ` (--resume ${asked.id})` : "";
    process.stderr.write(`put.mjs: ${code}${error.message}${hint}\n`);
    return exit[1];
  }
}

process.exitCode = await main();
