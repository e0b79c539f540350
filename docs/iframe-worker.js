// Search of a page that is opened as a file, where a browser starts no worker: its script runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inner = this.frame.contentWindow;
      this.receive = (event) => event.source === inner && this.onmessage?.(event);
      addEventListener("message", this.receive);
      inner.document.write(`<script>postMessage = (data) => parent.postMessage(data, "*")</script><script src="${url}"></script>`);
      inner.document.close();
      this.ready = new Promise((resolve) => { this.frame.onload = resolve; });
    }
    postMessage(data) {
      const message = new MessageEvent("message", { data: structuredClone(data) });
      this.ready.then(() => this.frame.contentWindow?.dispatchEvent(message));
    }
    terminate() {
      removeEventListener("message", this.receive);
      this.frame.remove();
    }
  };
}
