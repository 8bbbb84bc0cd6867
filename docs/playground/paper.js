// The paper to draw on: by mouse, finger, pen or keyboard. The ink is black on white.

const PEN = 20; // pixels, the width of a stroke
const STEP = 10; // pixels that an arrow key moves the pen; 2 with Shift
const PAUSE = 150; // milliseconds without a change until the drawing is read

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Paper {
  /**
   * @param {(paper: Paper) => void} onChange - Called soon after the drawing has changed.
   * @param {(digit: number) => void} onDigit - Called if the key of a digit is pressed.
   */
  constructor(canvas, pen, status, onChange, onDigit) {
    Object.assign(this, { canvas, pen, status, onChange, onDigit });
    this.side = canvas.width;
    this.ink = canvas.getContext("2d", { willReadFrequently: true });
    this.place = [this.side / 2, this.side / 2]; // of the keyboard's pen
    this.isDown = false;
    this.wipe();
    canvas.addEventListener("pointerdown", (event) => this.start(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (this.last = null));
    canvas.addEventListener("keydown", (event) => this.press(event));
    canvas.addEventListener("focus", () => this.showPen(canvas.matches(":focus-visible")));
    canvas.addEventListener("blur", () => this.lift());
  }

  /** The greys in rows, 0 (black) to 255 (white). */
  get greys() {
    const { data } = this.ink.getImageData(0, 0, this.side, this.side);
    return Uint8Array.from({ length: data.length / 4 }, (_, i) => data[4 * i]);
  }

  wipe() {
    this.ink.fillStyle = "#fff";
    this.ink.fillRect(0, 0, this.side, this.side);
  }

  clear() {
    this.wipe();
    this.changed();
  }

  /** Draw a white digit on black, such as MNIST's, in the size of the paper. */
  write(pixels, side) {
    const small = Object.assign(document.createElement("canvas"), { width: side, height: side });
    const image = new ImageData(side, side);
    pixels.forEach((value, i) => image.data.set([255 - value, 255 - value, 255 - value, 255], 4 * i));
    small.getContext("2d").putImageData(image, 0, 0);
    this.ink.imageSmoothingQuality = "high";
    this.ink.drawImage(small, 0, 0, this.side, this.side);
    this.changed();
  }

  line(from, to) {
    Object.assign(this.ink, { strokeStyle: "#000", lineWidth: PEN, lineCap: "round", lineJoin: "round" });
    this.ink.beginPath();
    this.ink.moveTo(...from);
    this.ink.lineTo(...to);
    this.ink.stroke();
    this.ink.fillStyle = "#000";
    this.ink.beginPath();
    this.ink.arc(...to, PEN / 2, 0, 2 * Math.PI); // a line without a length draws nothing
    this.ink.fill();
    this.changed();
  }

  changed() {
    this.canvas.ariaBusy = "true"; // until the page has read the drawing
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.timer = null;
      this.onChange(this);
    }, PAUSE);
  }

  where(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.side / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }

  start(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.lift();
    this.last = this.where(event);
    this.line(this.last, this.last);
  }

  move(event) {
    if (!this.last) return;
    const between = event.getCoalescedEvents?.() ?? [];
    for (const each of between.length ? between : [event]) {
      const next = this.where(each);
      this.line(this.last, next);
      this.last = next;
    }
  }

  press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const arrow = ARROWS[event.key];
    if (arrow) {
      const from = this.place;
      const step = event.shiftKey ? 2 : STEP;
      this.place = from.map((x, i) => Math.min(Math.max(x + step * arrow[i], 0), this.side));
      this.showPen(true);
      if (this.isDown) this.line(from, this.place);
    } else if (event.key === " ") {
      this.isDown = !this.isDown;
      this.showPen(true);
      if (this.isDown) this.line(this.place, this.place);
      this.status.textContent = this.isDown ? "The pen is down." : "The pen is up.";
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
      this.status.textContent = "The paper is empty.";
    } else if (/^\d$/.test(event.key)) {
      this.onDigit(Number(event.key));
    } else {
      return;
    }
    event.preventDefault();
  }

  lift() {
    this.isDown = false;
    this.showPen(false);
  }

  showPen(visible) {
    this.pen.hidden = !visible;
    this.pen.classList.toggle("down", this.isDown);
    [this.pen.style.left, this.pen.style.top] = this.place.map((x) => `${x}px`);
  }
}
