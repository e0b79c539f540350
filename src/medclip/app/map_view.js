// The map as a canvas: drag draws a lasso, the wheel zooms, a drag with Shift or the right button moves, two fingers both.
// By keyboard: arrows move a cursor, Enter or Space takes the points around it, + and - zoom, 0 shows all.
// Values come as bytes in base64: x and y as u16 of the unit square, a color's number and a mark for each point.

const SIZE = 65535;
const CURSOR_RADIUS = 20; // CSS pixels
const views = new WeakMap(); // zoom and position outlive a new coloring of the same element

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

function isInside(polygon, px, py) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const yi = polygon[i][1];
    const yj = polygon[j][1];
    if (yi > py === yj > py) continue;
    const xi = polygon[i][0];
    if (px < ((polygon[j][0] - xi) * (py - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const canvas = parentElement.querySelector("canvas");
  const legend = parentElement.querySelector("ul");
  const context = canvas.getContext("2d");
  const x = new Uint16Array(bytes(data.x).buffer);
  const y = new Uint16Array(bytes(data.y).buffer);
  const color = bytes(data.color);
  const mark = bytes(data.mark);
  if (views.get(canvas)?.layout !== data.layout) {
    views.set(canvas, { layout: data.layout, scale: 1, left: 0, top: 0, cursor: null });
  }
  const view = views.get(canvas);
  const points = document.createElement("canvas");
  const fingers = new Map(); // places of what is down, by pointer; the mouse is one too
  let lasso = null;
  let pan = null;

  canvas.setAttribute("aria-label", data.label);
  legend.replaceChildren(
    ...data.legend.map(({ name, color }) => {
      const item = document.createElement("li");
      const swatch = document.createElement("span");
      swatch.style.background = color;
      item.append(swatch, name); // text, never markup
      return item;
    }),
  );

  // the shorter side of the canvas shows the unit square
  const unit = () => Math.min(canvas.clientWidth, canvas.clientHeight) * 0.96 * view.scale;
  const toScreen = (px, py) => [
    canvas.clientWidth / 2 + (px / SIZE - 0.5 + view.left) * unit(),
    canvas.clientHeight / 2 - (py / SIZE - 0.5 + view.top) * unit(),
  ];

  function drawPoints() {
    const ratio = window.devicePixelRatio || 1;
    points.width = canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    points.height = canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    const layer = points.getContext("2d");
    layer.scale(ratio, ratio);
    const step = unit() / SIZE;
    const [x0, y0] = toScreen(0, 0);
    const radius = Math.min(4, Math.max(1, 120 / Math.sqrt(x.length + 1))) * Math.min(2, Math.sqrt(view.scale));
    const byColor = data.colors.map(() => []);
    for (let i = 0; i < x.length; i++) byColor[color[i]].push(i);
    byColor.forEach((members, number) => {
      layer.fillStyle = data.colors[number];
      for (const i of members) layer.fillRect(x0 + x[i] * step - radius, y0 - y[i] * step - radius, 2 * radius, 2 * radius);
    });
    const text = getComputedStyle(canvas).color;
    for (let i = 0; i < x.length; i++) {
      if (!mark[i]) continue;
      layer.strokeStyle = mark[i] === 1 ? text : "#d00000";
      layer.lineWidth = mark[i] === 1 ? 1.5 : 2.5;
      layer.strokeRect(x0 + x[i] * step - radius - 2, y0 - y[i] * step - radius - 2, 2 * radius + 4, 2 * radius + 4);
    }
    draw();
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(points, 0, 0);
    context.scale(ratio, ratio);
    context.strokeStyle = getComputedStyle(canvas).color;
    context.lineWidth = 1.5;
    if (lasso) {
      context.beginPath();
      for (const [px, py] of lasso) context.lineTo(px, py);
      context.closePath();
      context.stroke();
    }
    if (view.cursor) {
      context.beginPath();
      context.arc(...view.cursor, CURSOR_RADIUS, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  function select(contains) {
    const chosen = [];
    for (let i = 0; i < x.length; i++) if (contains(...toScreen(x[i], y[i]))) chosen.push(i);
    setTriggerValue("selected", chosen);
  }

  const around = ([cx, cy]) => (px, py) => (px - cx) ** 2 + (py - cy) ** 2 <= CURSOR_RADIUS ** 2;

  function zoom(factor, [px, py]) {
    const before = unit();
    view.scale = Math.min(200, Math.max(0.5, view.scale * factor));
    const shift = 1 / unit() - 1 / before;
    view.left += (px - canvas.clientWidth / 2) * shift;
    view.top -= (py - canvas.clientHeight / 2) * shift;
    drawPoints();
  }

  function pinch(before, after) {
    const middle = ([[x1, y1], [x2, y2]]) => [(x1 + x2) / 2, (y1 + y2) / 2];
    const spread = ([[x1, y1], [x2, y2]]) => Math.hypot(x1 - x2, y1 - y2) || 1;
    const [from, to] = [middle(before), middle(after)];
    view.left += (to[0] - from[0]) / unit();
    view.top -= (to[1] - from[1]) / unit();
    zoom(spread(after) / spread(before), to);
  }

  const center = () => [canvas.clientWidth / 2, canvas.clientHeight / 2];

  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    const place = [event.offsetX, event.offsetY];
    fingers.set(event.pointerId, place);
    if (fingers.size > 1) lasso = pan = null; // a second finger: no lasso after all
    else if (event.shiftKey || event.button === 2) pan = place;
    else lasso = [place];
    draw();
  };
  canvas.onpointermove = (event) => {
    const place = [event.offsetX, event.offsetY];
    const before = [...fingers.values()];
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, place);
    if (before.length === 2) pinch(before, [...fingers.values()]);
    else if (lasso) {
      lasso.push(place);
      draw();
    } else if (pan) {
      view.left += (place[0] - pan[0]) / unit();
      view.top -= (place[1] - pan[1]) / unit();
      pan = place;
      drawPoints();
    }
  };
  canvas.onpointerup = (event) => {
    fingers.delete(event.pointerId);
    const polygon = lasso;
    lasso = pan = null;
    draw();
    if (!polygon) return;
    if (polygon.length < 3) return select(around(polygon[0])); // a click
    const xs = polygon.map(([px]) => px);
    const ys = polygon.map(([, py]) => py);
    const [left, right] = [Math.min(...xs), Math.max(...xs)];
    const [top, bottom] = [Math.min(...ys), Math.max(...ys)];
    select((px, py) => px >= left && px <= right && py >= top && py <= bottom && isInside(polygon, px, py));
  };
  canvas.onpointercancel = (event) => {
    fingers.delete(event.pointerId);
    lasso = pan = null;
    draw();
  };
  canvas.oncontextmenu = (event) => event.preventDefault();
  canvas.onwheel = (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), [event.offsetX, event.offsetY]);
  };
  canvas.onkeydown = (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const cursor = view.cursor ?? center();
    if (event.key in steps) {
      const pixels = event.shiftKey ? 60 : 12;
      const [dx, dy] = steps[event.key];
      view.cursor = [
        Math.min(canvas.clientWidth, Math.max(0, cursor[0] + dx * pixels)),
        Math.min(canvas.clientHeight, Math.max(0, cursor[1] + dy * pixels)),
      ];
      draw();
    } else if (event.key === "Enter" || event.key === " ") select(around(cursor));
    else if (event.key === "+" || event.key === "-") zoom(event.key === "+" ? 1.5 : 1 / 1.5, cursor);
    else if (event.key === "0") {
      Object.assign(view, { scale: 1, left: 0, top: 0 });
      drawPoints();
    } else return;
    event.preventDefault();
  };
  canvas.onfocus = () => {
    if (canvas.matches(":focus-visible")) view.cursor ??= center();
    draw();
  };
  canvas.onblur = () => {
    view.cursor = null;
    draw();
  };
  const observer = new ResizeObserver(drawPoints);
  observer.observe(canvas);
  return () => observer.disconnect();
}
