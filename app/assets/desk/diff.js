// Word-level differences in the browser: the same algorithm as opadpo/text/worddiff.py, so that both show the same.

const SPACE = /^[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+$/;
const WORD = /^[\p{L}\p{N}\p{Pc}]$/u;
const MARK = /^\p{M}$/u;
const JOINER = "\u200d";
const APOSTROPHES = "'\u2019";
const UNSPACED = [
  [0x3000, 0x30ff],
  [0x3400, 0x4dbf],
  [0x4e00, 0x9fff],
  [0xf900, 0xfaff],
  [0xff00, 0xff9f],
  [0x20000, 0x3ffff],
];
/** Beyond this many comparisons only the common beginning and end are found: typing must never stall. */
const TOO_MANY = 4_000_000;

function kindOf(character) {
  if (!character) return "single";
  if (SPACE.test(character)) return "space";
  const code = character.codePointAt(0);
  if (UNSPACED.some(([low, high]) => low <= code && code <= high)) return "single";
  if (character === JOINER || MARK.test(character) || (0x1f3fb <= code && code <= 0x1f3ff)) return "attached";
  return WORD.test(character) ? "word" : "single";
}

/** `text` cut into words, single marks, single CJK characters and runs of white space; joined they are `text`. */
export function tokens(text) {
  const characters = Array.from(text);
  const found = [];
  let kind = "";
  characters.forEach((character, position) => {
    const last = kind;
    kind = kindOf(character);
    const end = found.at(-1);
    const glued = kind === "attached" || end?.endsWith(JOINER);
    const inside = last === "word" && APOSTROPHES.includes(character) && kindOf(characters[position + 1]) === "word";
    if (found.length && glued && !SPACE.test(end)) {
      found[found.length - 1] += character;
      kind = last;
    } else if (kind === last && (kind === "word" || kind === "space")) found[found.length - 1] += character;
    else if (inside) {
      found[found.length - 1] += character;
      kind = last;
    } else found.push(character);
  });
  return found;
}

/** How `first` becomes `second`: pairs [op, text], op one of equal, delete, insert. */
export function wordDiff(first, second) {
  const before = tokens(first);
  const after = tokens(second);
  const blocks = opcodes(before, after).map(([same, i, iEnd, j, jEnd]) => [
    same,
    before.slice(i, iEnd).join(""),
    after.slice(j, jEnd).join(""),
  ]);
  return withoutIslands(blocks).flatMap(([same, old, now]) => {
    if (same) return [["equal", old]];
    return [...(old ? [["delete", old]] : []), ...(now ? [["insert", now]] : [])];
  });
}

/** Ratcliff and Obershelp's longest common blocks, as Python's difflib finds them without its junk heuristics. */
function opcodes(before, after) {
  const blocks = before.length * after.length > TOO_MANY ? edges(before, after) : matches(before, after);
  const codes = [];
  let i = 0;
  let j = 0;
  for (const [a, b, size] of [...blocks, [before.length, after.length, 0]]) {
    if (i < a || j < b) codes.push([false, i, a, j, b]);
    [i, j] = [a + size, b + size];
    if (!size) continue;
    const last = codes.at(-1);
    if (last?.[0] && last[2] === a && last[4] === b) [last[2], last[4]] = [i, j];
    else codes.push([true, a, i, b, j]);
  }
  return codes;
}

function matches(before, after) {
  const where = new Map();
  after.forEach((token, j) => where.get(token)?.push(j) ?? where.set(token, [j]));
  const found = [];
  const queue = [[0, before.length, 0, after.length]];
  while (queue.length) {
    const [low, high, left, right] = queue.pop();
    const [i, j, size] = longest(before, where, low, high, left, right);
    if (!size) continue;
    found.push([i, j, size]);
    if (low < i && left < j) queue.push([low, i, left, j]);
    if (i + size < high && j + size < right) queue.push([i + size, high, j + size, right]);
  }
  return found.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
}

function longest(before, where, low, high, left, right) {
  let best = [low, left, 0];
  let lengths = new Map();
  for (let i = low; i < high; i++) {
    const next = new Map();
    for (const j of where.get(before[i]) ?? []) {
      if (j < left) continue;
      if (j >= right) break;
      const size = (lengths.get(j - 1) ?? 0) + 1;
      next.set(j, size);
      if (size > best[2]) best = [i - size + 1, j - size + 1, size];
    }
    lengths = next;
  }
  return best;
}

function edges(before, after) {
  const most = Math.min(before.length, after.length);
  let head = 0;
  while (head < most && before[head] === after[head]) head++;
  let tail = 0;
  while (tail < most - head && before.at(-1 - tail) === after.at(-1 - tail)) tail++;
  const blocks = [
    [0, 0, head],
    [before.length - tail, after.length - tail, tail],
  ];
  return blocks.filter(([, , size]) => size);
}

/** White space that is alone between two changes becomes part of them: "a b" for "c d" reads as one change. */
function withoutIslands(blocks) {
  const merged = [];
  blocks.forEach(([same, old, now], position) => {
    const island = same && SPACE.test(old) && position > 0 && position < blocks.length - 1;
    const last = merged.at(-1);
    if ((!same || island) && last && !last[0]) merged[merged.length - 1] = [false, last[1] + old, last[2] + now];
    else merged.push([same && !island, old, now]);
  });
  return merged;
}
