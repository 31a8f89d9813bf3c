// The sentences under review, as plain data. Kind follows from the text: unchanged is kept, empty is deleted.

let made = 0;

/** Working copies of a revision's sentences, in reading order. `key` names one for as long as the record is open. */
export function opened(sentences) {
  return sentences.map((sentence) => ({
    ...sentence,
    objects: [...sentence.objects],
    original: sentence.original,
    revised: sentence.revised.trim(),
    checked: Boolean(sentence.checked),
    key: `s${++made}`,
  }));
}

/** The model's own sentence, without the separator that a deleted one's span takes along. */
export const modelText = (sentence) => sentence.original.trim();

/** An empty sentence to be written by the reviewer, after the one at `position` in the list. */
export function added(list, position) {
  const before = list.slice(0, position + 1).filter((other) => other.kind !== "added").at(-1);
  const place = before?.end ?? 0;
  return {
    index: before?.index ?? 0, kind: "added", start: place, end: place, original: "", revised: "", score: null,
    error_type: "correct", objects: [], reason: "", not_minimal: false, checked: false, key: `s${++made}`,
  };
}

/** Give a sentence a new text; score, error type and objects follow where the kind changes. */
export function setText(sentence, text) {
  sentence.revised = text;
  if (sentence.kind === "added") return;
  const clean = text.trim();
  const kind = clean === modelText(sentence) ? "kept" : clean === "" ? "deleted" : "edited";
  if (kind === sentence.kind) return;
  if (kind === "kept") {
    const { score, error_type, objects, reason } = sentence;
    Object.assign(sentence, { memo: { score, error_type, objects, reason }, score: 4, error_type: "correct", objects: [] });
    sentence.reason = "";
  } else if (sentence.kind === "kept") {
    const fresh = { score: kind === "deleted" ? 1 : 3, error_type: "image_recognition_error", objects: [], reason: "" };
    const score = sentence.score < 4 ? { score: sentence.score } : {};
    Object.assign(sentence, fresh, sentence.memo, score);
  }
  sentence.kind = kind;
}

/** Delete a sentence, or take the deletion back. False for an added one: it leaves the list instead. */
export function toggleDeleted(sentence) {
  if (sentence.kind === "added") return false;
  if (sentence.kind === "deleted") setText(sentence, sentence.struck || modelText(sentence));
  else {
    sentence.struck = sentence.revised;
    setText(sentence, "");
  }
  return true;
}

/** Give a score. 4 brings the model's text back; 1 to 3 on an unchanged sentence asks for a change. */
export function setScore(sentence, score) {
  if (score === 4) setText(sentence, modelText(sentence));
  sentence.score = score;
}

/** Put another version of a sentence in its place. */
export function become(sentence, other) {
  const { kind, revised, score, error_type, objects, reason } = other;
  Object.assign(sentence, { kind, revised: revised.trim(), score, error_type, objects: [...objects], reason });
}

/** What keeps a sentence from being committed; an empty text if nothing does. */
export function problem(sentence) {
  if (sentence.kind === "kept" && sentence.score < 4)
    return `Score ${sentence.score} says that something is wrong: change the text, delete the sentence, or give it a 4.`;
  return "";
}

/** Characters of a text that cannot be seen and change how it reads: turned direction, no width. As "U+202E". */
export function hidden(text) {
  const found = text.match(/[\u200b\u202a-\u202e\u2060-\u2069\ufeff]/g) ?? [];
  return [...new Set(found)].map((character) => `U+${character.codePointAt(0).toString(16).toUpperCase()}`);
}

/** True if two versions of a sentence say and judge the same. */
export function same(one, other) {
  const view = (s) => [s.kind, s.revised.trim(), s.score, s.error_type, s.objects, s.reason];
  return JSON.stringify(view(one)) === JSON.stringify(view(other));
}

/** The version of a sentence in another list: the one of the same sentence of the response, or the same addition. */
export function counterpart(sentence, list = []) {
  if (sentence.kind !== "added") return list.find((other) => other.kind !== "added" && other.index === sentence.index);
  return list.find((other) => other.kind === "added" && other.revised.trim() === sentence.revised.trim());
}

/**
 * Mine on top of theirs: a sentence that I left as it was in `base` becomes theirs, one that I changed stays mine.
 * Their additions come along; an addition that only they took out goes.
 */
export function merged(mine, theirs, base) {
  const untouched = (sentence) => {
    const before = counterpart(sentence, base);
    return before && same(sentence, before);
  };
  const list = mine.filter((sentence) => sentence.kind !== "added" || !untouched(sentence) || counterpart(sentence, theirs));
  for (const sentence of list) {
    const their = sentence.kind !== "added" && untouched(sentence) && counterpart(sentence, theirs);
    if (their) become(sentence, their);
  }
  theirs.forEach((their, position) => {
    if (their.kind !== "added" || counterpart(their, base) || counterpart(their, list)) return;
    const before = theirs.slice(0, position).filter((other) => other.kind !== "added").length;
    const place = before ? list.findIndex((other) => other.kind !== "added" && other.index === before - 1) + 1 : 0;
    list.splice(place, 0, ...opened([their]));
  });
  return list;
}

/** The sentences as they travel, `checked` included. */
export function outgoing(list) {
  return list.map(({ key, memo, struck, ...sentence }) => ({ ...sentence, revised: sentence.revised.trim() }));
}

/** The sentences as a decision: without marks of the page, without additions that were left empty. */
export function decided(list) {
  const written = list.filter((sentence) => sentence.kind !== "added" || sentence.revised.trim());
  return outgoing(written).map(({ checked, ...sentence }) => sentence);
}

/** The two sides of "wrong -> right". */
export function splitObject(object) {
  const [wrong, ...right] = object.split("->");
  const after = right.join("->").trim();
  return [wrong.trim(), after === "nothing" ? "" : after];
}
