// The image: fit, zoom at the pointer, pan. It lies on its own layer, so nothing around it is laid out again.

import { button, h } from "./dom.js";

const STEP = 1.25;
const PAN = 48;
/** From this magnification on single pixels are shown as squares. */
const PIXELS = 3;

/** The image well. It has a fixed size; whatever is loaded is fitted into it. */
export class Zoom {
  constructor() {
    this.percent = h("span", { class: "d-pct" });
    this.size = h("span", { class: "d-size" });
    const small = { small: true, quiet: true, bare: true };
    this.node = h(
      "div",
      { class: "d-well", role: "group", "aria-label": "Image" },
      (this.stage = h("div", { class: "d-stage" })),
      this.size,
      h(
        "div",
        { class: "d-zoom", role: "group", "aria-label": "Zoom" },
        button("Zoom out", () => this.by(1 / STEP), { name: "minus", ...small }),
        this.percent,
        button("Zoom in", () => this.by(STEP), { name: "plus", ...small }),
        button("Fit the image", () => this.fit(), { name: "fit", ...small }),
      ),
    );
    this.node.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.stage.addEventListener("pointerdown", (event) => this.drag(event));
    this.stage.addEventListener("dblclick", (event) => this.at(this.fitted ? STEP ** 4 : 0, event));
    new ResizeObserver(() => this.fitted && this.fit()).observe(this.node);
  }

  /** Show an image that `picture` of api.js made. */
  async show(image, alt) {
    this.image = image;
    image.alt = alt;
    this.stage.replaceChildren(image);
    this.fitted = true;
    image.style.visibility = image.naturalWidth ? "" : "hidden";
    await image.ready;
    if (this.image !== image) return;
    image.style.visibility = "";
    if (!image.naturalWidth) this.stage.replaceChildren(h("p", { class: "d-noimage" }, "The image cannot be shown."));
    this.fit();
  }

  get box() {
    return { width: this.stage.clientWidth, height: this.stage.clientHeight };
  }

  fit() {
    if (!this.image?.naturalWidth) return this.tell();
    const { width, height } = this.box;
    this.least = Math.min(width / this.image.naturalWidth, height / this.image.naturalHeight);
    this.most = Math.max(8, this.least * 8, ...[width / this.image.naturalWidth, height / this.image.naturalHeight]);
    this.fitted = true;
    [this.scale, this.x, this.y] = [this.least, 0, 0];
    return this.place();
  }

  by(factor, point) {
    if (!this.image?.naturalWidth) return;
    const { width, height } = this.box;
    const { x, y } = point ?? { x: width / 2, y: height / 2 };
    const scale = Math.min(this.most, Math.max(this.least, this.scale * factor));
    const [cx, cy] = [x - width / 2 - this.x, y - height / 2 - this.y];
    this.x += cx - (cx * scale) / this.scale;
    this.y += cy - (cy * scale) / this.scale;
    this.scale = scale;
    this.fitted = scale === this.least;
    this.place();
  }

  /** Zoom at the pointer; factor 0 fits. */
  at(factor, event) {
    if (!factor) return this.fit();
    const { left, top } = this.node.getBoundingClientRect();
    return this.by(factor, { x: event.clientX - left, y: event.clientY - top });
  }

  pan(x, y) {
    if (!this.image?.naturalWidth) return;
    this.x += x * PAN;
    this.y += y * PAN;
    this.place();
  }

  wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 33 : 1;
    this.at(Math.exp((-event.deltaY * lines) / 400), event);
  }

  drag(event) {
    if (event.button || !this.image?.naturalWidth) return;
    const [x, y] = [this.x - event.clientX, this.y - event.clientY];
    const move = (moved) => {
      [this.x, this.y] = [x + moved.clientX, y + moved.clientY];
      this.place();
    };
    this.stage.setPointerCapture(event.pointerId);
    this.stage.addEventListener("pointermove", move);
    this.stage.addEventListener("lostpointercapture", () => this.stage.removeEventListener("pointermove", move), { once: true });
  }

  /** Put the image where it belongs; it never leaves the well. */
  place() {
    const { width, height } = this.box;
    const room = (side, own) => Math.max(0, (own * this.scale - side) / 2);
    const [roomX, roomY] = [room(width, this.image.naturalWidth), room(height, this.image.naturalHeight)];
    this.x = Math.min(roomX, Math.max(-roomX, this.x));
    this.y = Math.min(roomY, Math.max(-roomY, this.y));
    const style = this.image.style;
    style.width = `${this.image.naturalWidth * this.scale}px`;
    style.height = `${this.image.naturalHeight * this.scale}px`;
    style.transform = `translate(-50%, -50%) translate(${this.x}px, ${this.y}px)`;
    this.image.classList.toggle("pixels", this.scale >= PIXELS);
    this.stage.classList.toggle("movable", roomX > 0 || roomY > 0);
    this.tell();
  }

  tell() {
    const image = this.image?.naturalWidth ? this.image : null;
    this.percent.textContent = image ? `${Math.round(this.scale * 100)} %` : "";
    this.size.textContent = image ? `${image.naturalWidth} × ${image.naturalHeight}` : "";
  }
}
