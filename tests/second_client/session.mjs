// One session with a server: connect, HELLO, requests, credit, PING while there is nothing to say.

import { connect } from "node:net";

import { crc32c } from "./crc32c.mjs";
import { Receiver, TYPE, encodeControl, encodeHeader } from "./frames.mjs";
import { encode, nameOf } from "./messages.mjs";

const REQUESTS_MAX = 64;
const TIMER_MS_MAX = 2 ** 31 - 1; // what setInterval takes

/** The server said ERROR about a request, an upload or the session. */
export class Refused extends Error {
  constructor(message) {
    super(message.text);
    this.code = nameOf("ErrorCode", message.code);
    this.retryable = message.retryable;
    this.missing = message.missing;
  }
}

/** The stream could not be opened, or ended without an ERROR. */
export class Lost extends Error {}

export class Session {
  credit = 0;
  hello = null;
  notices = []; // ERRORs about uploads and chunks, not yet taken
  instanceId = null; // hexadecimal, as the last frame had it
  #receiver = new Receiver();
  #replies = new Map();
  #failure = null;
  #wake = [];
  #cookie = 0n;
  #socket;
  #timer = null;

  /** Connect and say HELLO; `where` is what net.connect takes. */
  static async open(where, features) {
    const session = new Session();
    session.#socket = connect({ ...where, noDelay: true });
    session.#socket.on("data", (bytes) => session.#received(bytes));
    session.#socket.on("error", (error) => session.#fail(new Lost(error.message)));
    session.#socket.on("end", () => session.#ended());
    session.#socket.on("close", () => session.#fail(new Lost("the connection is closed")));
    const asked = { client: "second-client/1", features };
    session.hello = await session.ask("HELLO", "Hello", asked);
    session.credit = session.hello.credit;
    session.instanceId = session.hello.instance_id.toString("hex");
    session.#keepAlive(Number(session.hello.idle_timeout_ms));
    return session;
  }

  has(feature) {
    return this.hello.features.includes(feature);
  }

  /** Send a request and wait for its reply; Refused, Lost or ProtocolError instead of one. */
  async ask(type, message, values, upload = 0n) {
    this.check();
    this.#cookie += 1n;
    const fields = { type: TYPE[type], cookie: this.#cookie, upload };
    const reply = new Promise((resolve, reject) => {
      this.#replies.set(fields.cookie, { resolve, reject });
    });
    this.#receiver.sent(fields);
    this.#socket.write(encodeControl(TYPE[type], encode(message, values), fields));
    return await reply;
  }

  /** Send a chunk, which uses one credit; returns when the socket takes more. */
  async data(upload, offset, chunk) {
    while (this.credit === 0) await this.turn();
    this.check();
    this.credit -= 1;
    const fields = { upload, offset: BigInt(offset), length: chunk.length, crc: crc32c(chunk) };
    this.#socket.write(encodeHeader(TYPE.DATA, fields));
    let taken = this.#socket.write(chunk);
    if (!taken) this.#socket.once("drain", () => { taken = true; this.#turned(); });
    while (!taken) await this.turn();
  }

  /** Wait until something arrived or failed. */
  async turn() {
    this.check();
    await new Promise((resolve) => { this.#wake.push(resolve); });
    this.check();
  }

  check() {
    if (this.#failure !== null) throw this.#failure;
  }

  close() {
    clearInterval(this.#timer);
    this.#socket.end();
    this.#socket.destroySoon();
  }

  /** The server may end a session that is silent, also one that waits for it. */
  #keepAlive(timeoutMs) {
    if (timeoutMs === 0) return;
    const ping = () => {
      if (this.#failure === null && this.#receiver.unanswered < REQUESTS_MAX) {
        this.ask("PING", "Ping", {}).catch(() => {}); // check() throws it
      }
    };
    this.#timer = setInterval(ping, Math.min(Math.max(timeoutMs / 3, 1), TIMER_MS_MAX));
  }

  #received(bytes) {
    try {
      for (const frame of this.#receiver.receive(bytes)) this.#frame(frame);
    } catch (error) {
      this.#fail(error);
      this.#socket.destroy(); // a client that is sent nonsense closes
    }
    this.#turned();
  }

  #frame({ type, cookie, message, ends }) {
    if (type === TYPE.ERROR && ends) this.#fail(new Refused(message));
    else if (cookie !== 0n) {
      const waiting = this.#replies.get(cookie);
      this.#replies.delete(cookie);
      if (type === TYPE.ERROR) waiting.reject(new Refused(message));
      else waiting.resolve(message);
    } else if (type === TYPE.ACK) this.credit += message.credit;
    else if (type === TYPE.ERROR) this.notices.push(new Refused(message));
    if (message.instance_id !== undefined) this.instanceId = message.instance_id.toString("hex");
  }

  #ended() {
    try {
      this.#receiver.end();
      this.#fail(new Lost("the server closed the connection"));
    } catch (error) {
      this.#fail(new Lost(error.message));
    }
  }

  #fail(error) {
    this.#failure ??= error;
    for (const { reject } of this.#replies.values()) reject(this.#failure);
    this.#replies.clear();
    this.#turned();
  }

  #turned() {
    for (const wake of this.#wake.splice(0)) wake();
  }
}
