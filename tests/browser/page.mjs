// What people do with the page, in a real browser: node page.mjs SCENARIO WEB [PRESENCE], the addresses
// as the server prints them. It ends with status 0 if all was as it should be. tests/clients/browser.rs
// starts the servers, and this; `pictures` alone is for the hand.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const PATIENCE = 20_000;
const [scenario, web, presence] = process.argv.slice(2);
const PAGE = `http://${web}/`;

/** An `nc` user. */
class Nc {
  constructor(address) {
    const [host, port] = address.split(':');
    this.child = spawn('nc', [host, port], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.lines = createInterface(this.child.stdout)[Symbol.asyncIterator]();
    process.on('exit', () => this.child.kill());
  }
  say(line) {
    this.child.stdin.write(line + '\n');
  }
  /** Reads up to this line. */
  async hear(line) {
    const late = setTimeout(() => this.child.kill(), PATIENCE);
    for (;;) {
      const { value, done } = await this.lines.next();
      assert(!done, `nc ended without hearing ${line}`);
      if (value === line) return clearTimeout(late);
    }
  }
}

/** The page in a tab of its own, and what the console had to say of it. */
async function open(options = {}, url = PAGE) {
  const tab = await browser.newPage({ viewport: { width: 1240, height: 900 }, ...options });
  tab.setDefaultTimeout(PATIENCE);
  tab.complaints = [];
  tab.on('console', it => ['error', 'warning'].includes(it.type()) && tab.complaints.push(it.text()));
  tab.on('pageerror', error => tab.complaints.push(String(error)));
  tab.answer = await tab.goto(url);
  return tab;
}

async function join(tab, name) {
  await tab.getByLabel('Your name').fill(name);
  await tab.getByRole('button', { name: 'Join' }).click();
  await tab.getByText(`${name} is in the room.`).waitFor();
}
const log = tab => tab.getByRole('log');
const who = tab => tab.getByRole('list', { name: 'Who is there' });
const row = (tab, words) => tab.getByRole('row').filter({ hasText: words });
const live = tab => tab.getByRole('banner').getByText('live', { exact: true }).waitFor();

/** A page of somebody else on the same machine. */
async function theirs() {
  const server = createServer((_, answer) => answer.setHeader('Content-Type', 'text/html').end('<!doctype html>'));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return `http://127.0.0.1:${server.address().port}/`;
}

/** Waits until something is so. */
async function until(what, so) {
  const deadline = Date.now() + PATIENCE;
  while (!await so()) {
    assert(Date.now() < deadline, `not yet: ${what}`);
    await new Promise(done => setTimeout(done, 50));
  }
}

const scenarios = {
  async loop() {
    const tab = await open();
    const policy = tab.answer.headers()['content-security-policy'];
    assert.match(policy, /default-src 'none'/);
    assert.doesNotMatch(policy, /unsafe/);
    await live(tab);
    // It moves: these are of the last second, and of every part of a turn.
    await tab.getByText(/^One thread serves .* In the last second it went round .* and slept for .*%/).waitFor();
    for (const part of ['wait', 'accept', 'read', 'handlers', 'timers', 'messages', 'flush'])
      await tab.locator('#parts li', { hasText: part }).getByText(/\d\u202f(s|ms|µs)$/).first().waitFor();
    for (const title of ['Connections', 'Lines a second', 'Length of a turn'])
      await tab.getByRole('img', { name: new RegExp(`^${title} in the last five minutes\\. .*\\d`) }).waitFor();
    for (const region of ['The loop', 'The last five minutes', 'Services', 'The room', 'Connections'])
      await tab.getByRole('region', { name: region }).waitFor();
    // By hand: stopped, one part after the other.
    await tab.getByRole('button', { name: 'Pause' }).press('Enter');
    const at = () => tab.locator('#parts li.on b').textContent();
    const parts = [await at()];
    for (let i = 0; i < 7; i++) {
      await tab.getByRole('button', { name: 'Next part' }).press('Enter');
      parts.push(await at());
    }
    assert.equal(new Set(parts).size, 7);
    assert.equal(parts[0], parts[7]);
    await row(tab, web).filter({ hasText: 'of' }).first().waitFor();
    // The header of a column sorts, with the keyboard too, and says so.
    const header = tab.getByRole('columnheader', { name: 'Unsent' }).filter({ has: tab.getByRole('button') });
    await header.getByRole('button').press('Enter');
    assert.equal(await header.getAttribute('aria-sort'), 'descending');
    await header.getByRole('button').press('Enter');
    assert.equal(await header.getAttribute('aria-sort'), 'ascending');
    // One request at a time, and none while nobody looks.
    // One may be under way already.
    const under_way = new Set();
    let [at_once, asked] = [0, 0];
    tab.on('request', request => { asked += 1; at_once = Math.max(at_once, under_way.add(request).size); });
    for (const end of ['requestfinished', 'requestfailed']) tab.on(end, request => under_way.delete(request));
    await until('it asks again and again', () => asked >= 2);
    const hide = hidden => tab.evaluate(hidden => {
      Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
    await hide(true);
    await until('the last answer is there', () => under_way.size === 0);
    asked = 0;
    await new Promise(done => setTimeout(done, 1500));
    assert.deepEqual([asked, at_once], [0, 1]);
    await hide(false);
    await until('it asks again', () => asked >= 1);
    // Nobody may close here, so nobody is offered to.
    assert.equal(await tab.getByRole('button', { name: /^Close/ }).count(), 0);
    await tab.setViewportSize({ width: 400, height: 800 });
    await until('it fits a telephone', () => tab.evaluate(() => document.documentElement.scrollWidth <= 400));
    const calm = await open({ reducedMotion: 'reduce' });
    await calm.getByRole('button', { name: 'Go on' }).waitFor();
    assert.deepEqual([tab.complaints, calm.complaints], [[], []]);
  },

  /** More than it shows: the first hundred, by what the server puts first, and any by searching. */
  async crowd() {
    const [host, port] = presence.split(':');
    const crowd = Array.from({ length: 120 }, () => connect(port, host).resume());
    await Promise.all(crowd.map(it => once(it, 'connect')));
    const tab = await open();
    await tab.getByText(/^100 of 12\d shown$/).waitFor();
    await tab.getByRole('button', { name: 'Out', exact: true }).click();
    await tab.getByText(/^100 of 12\d shown: those with most output$/).waitFor();
    await tab.getByRole('combobox', { name: 'Service' }).selectOption('presence');
    await tab.getByText('100 of 120 shown: those with most output').waitFor();
    await tab.getByRole('searchbox', { name: 'Find' }).fill(`:${crowd[119].localPort}`);
    await tab.getByText('1 shown of 1 found in 120').waitFor();
    await tab.getByRole('cell', { name: `${crowd[119].localAddress}:${crowd[119].localPort}` }).waitFor();
    assert.deepEqual(tab.complaints, []);
    crowd.forEach(it => it.destroy());
  },

  async room() {
    const nc = new Nc(presence);
    await nc.hear('Welcome to the Presence Server');
    nc.say('HELLO alice');
    const tab = await open();
    await live(tab);
    await tab.getByText(`nc ${presence.replace(':', ' ')}`).waitFor();
    await join(tab, 'olivier');
    await nc.hear('olivier is in the room.');
    await who(tab).getByText('alice').waitFor();
    await who(tab).getByText('olivier').waitFor();
    // In both directions, and what looks like markup is but text.
    await tab.getByLabel('Say something').fill('good evening, été');
    await tab.getByLabel('Say something').press('Enter');
    await nc.hear('olivier says: good evening, été');
    nc.say('SAY <img src=x onerror=alert(1)><b>good evening</b>');
    await log(tab).getByText('<img src=x onerror=alert(1)><b>good evening</b>').waitFor();
    assert.equal(await tab.locator('img').count(), 0);
    nc.say('HELLO <b>eve</b>');
    await who(tab).getByText('<b>eve</b>').waitFor();
    nc.say('BYE');
    await log(tab).getByText('<b>eve</b> has left the room.').waitFor();
    await until('she is on the list no more', async () => await who(tab).getByRole('listitem').count() === 1);
    // The page leaves, and may come back.
    await tab.getByRole('button', { name: 'Leave' }).click();
    await tab.getByText('You have left the room.').waitFor();
    await tab.getByRole('button', { name: 'Join again' }).click();
    await tab.getByText('You are in as olivier.').waitFor();
    assert.deepEqual(tab.complaints, []);
  },

  /** A page of somebody else in the same browser, and a name that somebody has pointed at this machine. */
  async strangers() {
    const dial = (tab, url) => tab.evaluate(url => new Promise(done => {
      const socket = new WebSocket(url);
      socket.onopen = () => done('open');
      socket.onclose = ({ code }) => done(code);
    }), url);
    const port = web.split(':')[1];
    const tab = await open({}, await theirs());
    assert.equal(await dial(tab, `ws://${web}/ws/presence`), 1006);
    assert.equal(await tab.evaluate(url => fetch(url).then(() => 'read', () => 'kept'), PAGE + 'status.json'), 'kept');
    // A refusal without a page in it is an error for a browser.
    const evil = await browser.newPage(), answer = evil.waitForEvent('response');
    await evil.goto(`http://evil.example:${port}/`).catch(() => {});
    assert.equal((await answer).status(), 403);
    assert.equal(await dial(tab, `ws://evil.example:${port}/ws/presence`), 1006);
    // The same from where it may be done, so that it is not something else that stops it.
    const ours = await open();
    assert.equal(await dial(ours, `ws://${web}/ws/presence`), 'open');
    assert.deepEqual(ours.complaints, []);
  },

  async close() {
    const alice = new Nc(presence);
    alice.say('HELLO alice');
    await alice.hear('alice is in the room.');
    const bob = new Nc(presence);
    bob.say('HELLO bob');
    await bob.hear('bob is in the room.');
    const tab = await open();
    await live(tab);
    await tab.getByRole('searchbox', { name: 'Find' }).fill('presence');
    const buttons = row(tab, 'presence').getByRole('button', { name: /^Close Connection \d+$/ });
    await until('there are the two of them', async () => await buttons.count() === 2);
    const button = await buttons.first().getAttribute('aria-label');
    const number = button.match(/\d+/)[0];
    // Not for a page of somebody else.
    const foreign = await open({}, await theirs());
    await foreign.evaluate(url => fetch(url, { method: 'POST', mode: 'no-cors' }).catch(() => {}), `${PAGE}close/${number}`);
    alice.say('SAY still here');
    await bob.hear('alice says: still here');
    await tab.getByRole('button', { name: button }).click();
    await tab.getByRole('button', { name: `Sure? Connection ${number}` }).click();
    await tab.getByText(`Connection ${number}: closed.`).waitFor();
    // Whose button is the first depends on which thread has whom.
    await Promise.any([bob.hear('alice has left the room.'), alice.hear('bob has left the room.')]);
    await until('its row is gone', async () => await buttons.count() === 1);
    assert.deepEqual(tab.complaints, []);
  },

  /** Tells by a line when the server is to go, and when it is to come back. */
  async gone() {
    const tab = await open();
    await live(tab);
    await join(tab, 'olivier');
    const process_ = () => tab.getByText(/process \d+/).textContent().then(text => text.match(/process \d+/)[0]);
    const before = await process_();
    console.log('stop');
    await tab.getByText(/^The server does not answer\. Asking again/).waitFor();
    await tab.getByText(/The server is shutting down\.|The connection was lost\./).waitFor();
    console.log('start');
    await live(tab);
    await until('it is the new one', async () => await process_() !== before);
    await tab.getByText(/^The server does not answer/).waitFor({ state: 'hidden' });
    await tab.getByRole('button', { name: 'Join again' }).click();
    await tab.getByText('You are in as olivier.').waitFor();
  },

  /**
   * The pictures of docs/, with something to see on them, which takes five minutes:
   * reactor serve web=0 presence=0 echo=0, then page.mjs pictures WEB PRESENCE ECHO, then pngquant.
   */
  async pictures() {
    const docs = new URL('../../docs/', import.meta.url).pathname;
    const [host, port] = process.argv[5].split(':');
    const clients = Array.from({ length: 40 }, () => connect(port, host).resume());
    const talk = setInterval(() => {
      const now = Date.now() / 1000, busy = 20 + 18 * Math.sin(now / 12) + 3 * Math.sin(now * 3);
      for (let i = 0; i < busy; i++) clients[Math.floor(Math.random() * clients.length)].write('an echo of a line\n'.repeat(8));
    }, 20);
    const [alice, bob] = ['alice', 'bob'].map(name => {
      const nc = new Nc(presence);
      nc.say('HELLO ' + name);
      return nc;
    });
    const light = await open({ viewport: { width: 1240, height: 1360 } });
    const dark = await open({ viewport: { width: 1240, height: 1200 }, colorScheme: 'dark' });
    const phone = await open({ viewport: { width: 400, height: 900 } });
    await join(dark, 'olivier');
    alice.say('SAY what does edge-triggered mean?');
    await bob.hear('alice says: what does edge-triggered mean?');
    bob.say('SAY it tells once, so the socket has to be read until it is empty');
    for (let minute = 0; minute < 5; minute += 1 / 6) {
      await new Promise(done => setTimeout(done, 10_000));
      clients.push(...Array.from({ length: 1 + 7 * Math.random() }, () => connect(port, host).resume()));
      clients.splice(0, 6 * Math.random()).forEach(it => it.destroy());
    }
    for (const [name, tab] of Object.entries({ light, dark, phone })) {
      await tab.evaluate(top => { document.activeElement.blur(); scrollTo(0, top ?? document.querySelector('#h-services').offsetTop - 24); },
        tab === dark ? null : 0);
      // Of a second in which the machine did not do something else.
      await tab.locator('#s-p99', { hasText: 'µs' }).waitFor();
      await tab.locator('#parts li.on', { hasText: 'handlers' }).waitFor();
      await new Promise(done => setTimeout(done, 800)); // the dot glides
      await tab.screenshot({ path: `${docs}page-${name}.png` });
    }
    clearInterval(talk);
    clients.forEach(it => it.destroy());
  },
};

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--host-resolver-rules=MAP evil.example 127.0.0.1'] });
try {
  await scenarios[scenario]();
} finally {
  await browser.close();
  console.log('over');
}
// An nc outlives its server.
process.exit();
