// What a reviewer does to single sentences: every change goes through here, can be taken back, and is saved.

import { Page } from "./page.js";
import { added, become, counterpart, modelText, problem, same, setScore, setText, toggleDeleted } from "./sentences.js";

const STEPS = 100;

/** The part of the desk that works on `sentences`, of which one is `current` and may be open for `editing`. */
export class SentenceActions extends Page {
  sentences = [];
  current = null;
  editing = false;
  steps = [];

  changed() {
    this.drafts.changed();
  }

  /** Whoever begins to write stays at the open record: one that was asked for before does not take its place any more. */
  stay() {
    this.newest("record");
  }

  /** Remember how things are, to come back to by `undo`. */
  step(name) {
    const state = structuredClone(this.sentences);
    this.steps.push({ name, state, at: this.sentences.indexOf(this.current) });
    if (this.steps.length > STEPS) this.steps.shift();
  }

  stepBack() {
    const { name, state, at } = this.steps.pop();
    this.editing = false;
    this.sentences = state;
    this.current = state[Math.min(Math.max(at, 0), state.length - 1)] ?? null;
    this.rows.repaint(state);
    if (this.current) this.rows.focus(this.current);
    this.changed();
    this.toast(`Taken back: ${name}.`);
  }

  /** Show a sentence as it is now. */
  refresh(sentence) {
    if (this.editing && sentence === this.current) this.refreshEditor();
    else this.rows.update(sentence);
    this.rows.tally(this.sentences);
  }

  // -- moving -----------------------------------------------------------------------------------------------------

  select(sentence) {
    if (this.current === sentence) return;
    this.finish();
    const before = this.current;
    this.current = sentence;
    if (before) this.rows.mark(before);
    this.rows.mark(sentence);
  }

  go(sentence) {
    this.select(sentence);
    this.rows.focus(sentence);
  }

  move(by) {
    const at = this.sentences.indexOf(this.current) + by;
    const target = this.sentences[Math.min(Math.max(at, 0), this.sentences.length - 1)];
    if (target) this.go(target);
  }

  nextSentence() {
    this.move(1);
  }

  previousSentence() {
    this.move(-1);
  }

  // -- the text ---------------------------------------------------------------------------------------------------

  /** Open a sentence, with the focus on its text, or on another field. */
  edit(sentence = this.current, field = "text") {
    if (!sentence) return;
    this.select(sentence);
    if (!this.editing) {
      this.stay();
      this.editing = true;
      this.before = sentence.revised;
      this.rows.update(sentence);
    }
    const input = this.rows.row(sentence).querySelector(`[data-field="${field}"]`);
    input?.focus({ preventScroll: true });
    if (field === "text") input?.setSelectionRange(input.value.length, input.value.length);
    this.rows.reveal(sentence);
  }

  typed(sentence, text) {
    if (!this.typing) this.step("the edit");
    this.typing = true;
    setText(sentence, text);
    this.refreshEditor(true);
    this.changed();
  }

  /** Close the open sentence. What was changed counts as looked at; an addition without text goes. */
  finish() {
    this.typing = false;
    if (!this.editing) return;
    this.editing = false;
    const sentence = this.current;
    if (sentence.kind === "added" && !sentence.revised.trim()) return void this.remove(sentence);
    if (sentence.revised !== this.before && !problem(sentence) && !sentence.checked) {
      sentence.checked = true;
      this.changed();
    }
    this.rows.update(sentence);
  }

  /** Leave the text or the field; the row stays current. */
  leave(typing = true) {
    if (!this.editing && !typing) return false;
    this.finish();
    if (this.current) this.rows.focus(this.current);
    return true;
  }

  remove(sentence) {
    const at = this.sentences.indexOf(sentence);
    this.sentences = this.sentences.filter((other) => other !== sentence);
    if (this.current === sentence) this.current = this.sentences[Math.max(0, at - 1)] ?? null;
    this.editing = false;
    this.rows.repaint(this.sentences);
    if (this.current) this.rows.focus(this.current);
    this.changed();
  }

  addSentence() {
    if (!this.record) return;
    this.finish();
    this.step("the added sentence");
    const at = this.sentences.indexOf(this.current);
    const sentence = added(this.sentences, at);
    this.sentences = [...this.sentences.slice(0, at + 1), sentence, ...this.sentences.slice(at + 1)];
    this.rows.repaint(this.sentences);
    this.edit(sentence);
  }

  deleteSentence(sentence = this.current) {
    if (!sentence) return;
    this.step(sentence.kind === "deleted" ? "the restored sentence" : "the deleted sentence");
    if (!toggleDeleted(sentence)) return void this.remove(sentence);
    this.select(sentence);
    this.refresh(sentence);
    this.changed();
    this.say(sentence.kind === "deleted" ? "Deleted" : "Taken back");
  }

  restoreOriginal(sentence = this.current) {
    if (!sentence || sentence.kind === "added") return;
    this.step("the restored text");
    setScore(sentence, 4);
    this.select(sentence);
    this.refresh(sentence);
    this.changed();
    this.say("The model's text is restored");
  }

  expertVersion(sentence) {
    return sentence.kind === "added" ? null : counterpart(sentence, this.record?.expert?.sentences);
  }

  restoreExpert(sentence = this.current) {
    const version = sentence && this.expertVersion(sentence);
    if (!version) return;
    this.step("the expert's text");
    become(sentence, version);
    this.refresh(sentence);
    this.changed();
    this.say("The expert's text is restored");
  }

  // -- judgement --------------------------------------------------------------------------------------------------

  score(score, sentence = this.current) {
    if (!sentence) return;
    if (sentence.kind === "added") return void this.toast("An added sentence has no score.");
    if (sentence.kind === "deleted" && score === 4) return void this.restoreOriginal(sentence);
    this.step("the score");
    const text = sentence.revised.trim();
    setScore(sentence, score);
    this.changed();
    if (problem(sentence)) {
      if (!this.editing) this.edit(sentence);
      else this.refresh(sentence);
      return void this.say(problem(sentence));
    }
    this.refresh(sentence);
    const restored = text !== modelText(sentence) && score === 4;
    if (restored) this.toast("Score 4: the model's text is back. U takes it back.");
    else this.say(`Score ${score}`);
  }

  setError(sentence, value) {
    this.step("the error type");
    sentence.error_type = value;
    this.refresh(sentence);
    this.changed();
    this.say(this.guide.errors.find((error) => error.value === value).long);
  }

  /** The other error type. */
  errorType() {
    const sentence = this.current;
    if (!sentence || sentence.kind === "kept" || sentence.kind === "added") return void this.toast("Only a changed sentence has an error type.");
    const [image, language] = this.guide.errors;
    this.setError(sentence, sentence.error_type === image.value ? language.value : image.value);
  }

  setObjects(sentence, objects) {
    this.step("the objects");
    sentence.objects = objects;
    this.refresh(sentence);
    this.changed();
  }

  addObject() {
    if (!this.current || this.current.kind === "kept" || this.current.kind === "added") return void this.toast("Change the text first: only a changed sentence has objects in error.");
    this.edit(this.current, "object-wrong");
  }

  setReason(sentence, reason) {
    sentence.reason = reason;
    this.changed();
  }

  editReason() {
    if (!this.current || this.current.kind === "kept") return void this.toast("Only a changed sentence has a reason.");
    this.edit(this.current, "reason");
  }

  /** Accept a sentence and go `onward`; without, which is a click on its tick, also take the acceptance back. */
  acceptSentence(sentence, onward = false) {
    if (!sentence) return;
    if (problem(sentence)) return void this.object(sentence, problem(sentence));
    this.finish();
    sentence.checked = onward || !sentence.checked;
    this.rows.update(sentence);
    this.changed();
    this.say(sentence.checked ? "Accepted" : "Not accepted");
    if (onward) this.move(1);
  }

  acceptAll() {
    const wrong = this.sentences.find(problem);
    if (wrong) return void this.object(wrong, problem(wrong));
    this.finish();
    for (const sentence of this.sentences) sentence.checked = true;
    this.rows.repaint(this.sentences);
    if (this.current) this.rows.focus(this.current);
    this.changed();
    this.say("All sentences are accepted");
  }

  /** Whose version of a sentence this is, as {icon, name}. */
  origin(sentence) {
    const expert = counterpart(sentence, this.record?.expert?.sentences);
    if (expert && same(sentence, expert)) return { icon: "spark", name: "Expert" };
    const current = counterpart(sentence, this.record?.current?.sentences);
    if (current && same(sentence, current)) return { icon: "user", name: this.record.current.author };
    return { icon: "user", name: "You" };
  }
}
