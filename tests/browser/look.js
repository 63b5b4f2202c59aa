// Runs inside JupyterLab's page, before anything else does: what a person at the screen would see,
// as plain data. JupyterLab shows itself as `window.jupyterapp` (LabApp.expose_app_in_browser).
window.lesson = {
  hidden: [], // errors and stderr that reach no cell: a widget's callback writes them to the log
  refused: new Set(), // channels that the widgets opened and the kernel closed at once
  watched: false,
  ran: null, // "yes" when Run All Cells has come to its end, with or without an error

  panel() {
    const widget = window.jupyterapp?.shell?.currentWidget;
    return widget?.content?.widgets && widget.sessionContext ? widget : null;
  },

  texts(selector) {
    return [...document.querySelectorAll(selector)].map((node) => node.innerText.trim());
  },

  asks() {
    return this.texts(".jp-Dialog").length > 0;
  },

  opened() {
    const panel = this.panel();
    if (panel && !this.watched) this.watch();
    const idle = panel?.sessionContext.isReady && panel.context.isReady && this.idle();
    return Boolean(idle) || this.asks();
  },

  idle() {
    return this.panel().sessionContext.session?.kernel?.status === "idle";
  },

  watch() {
    this.watched = true;
    window.jupyterapp.commands.commandExecuted.connect((_, { id, result }) => {
      const end = () => (this.ran = "yes");
      if (["runmenu:run-all", "notebook:run-all-cells"].includes(id)) result.then(end, end);
    });
    this.panel().sessionContext.iopubMessage.connect((_, message) => {
      if (message.parent_header.msg_type === "execute_request") return;
      const { name, text, ename, evalue } = message.content;
      if (message.header.msg_type === "error") this.hidden.push(`${ename}: ${evalue}`);
      if (message.header.msg_type === "stream" && name === "stderr") this.hidden.push(text);
      const closed = message.header.msg_type === "comm_close";
      if (closed && message.parent_header.msg_type === "comm_open") {
        this.refused.add(message.content.comm_id);
      }
    });
  },

  // JupyterLab's widgets ask every new kernel for its state. One that has not imported ipywidgets
  // refuses, in lines that come in any order, before the first cell runs or after it.
  log() {
    const greetings = ["No such comm target registered: jupyter.widget.control"];
    this.refused.forEach((id) => greetings.push(`No such comm: ${id}`));
    return this.hidden.filter(
      (text) => !text.trim().split("\n").every((line) => greetings.includes(line)),
    );
  },

  async save() {
    await window.jupyterapp.commands.execute("docmanager:save");
  },

  finished() {
    return (this.ran !== null && this.idle()) || this.asks();
  },

  // Widgets are drawn after their cell has ended, and pictures are decoded later still.
  drawn() {
    const waiting = this.texts(".jp-OutputArea").some((text) => text.includes("Loading widget..."));
    const pictures = [...this.panel().node.querySelectorAll("img")];
    return !waiting && pictures.every((picture) => picture.complete);
  },

  // The kernel answers in order, so its answer means that it has seen every earlier message.
  async answered() {
    await this.panel().sessionContext.session.kernel.requestKernelInfo();
  },

  picture(image) {
    const { naturalWidth: width, naturalHeight: height } = image;
    const shown = image.getBoundingClientRect();
    const found = { width, height, shown: shown.width * shown.height > 0, blank: false };
    if (!width || !height) return found;
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const pen = canvas.getContext("2d");
    pen.drawImage(image, 0, 0);
    try {
      const pixels = new Uint32Array(pen.getImageData(0, 0, width, height).data.buffer);
      found.blank = pixels.every((pixel) => pixel === pixels[0]);
    } catch {
      // A picture of another origin can't be read; that it was asked for is reported elsewhere.
    }
    return found;
  },

  cell(widget, index) {
    const code = widget.model.type === "code";
    const area = code ? widget.outputArea : null;
    const shown = area ? [...area.node.querySelectorAll("[data-mime-type]")] : [];
    return {
      index,
      code,
      source: widget.model.sharedModel.source,
      count: code ? widget.model.executionCount : null,
      waiting: widget.node.querySelector(".jp-InputPrompt")?.innerText.includes("*") ?? false,
      outputs: area ? widget.model.outputs.toJSON() : [],
      mimes: shown.map((node) => node.dataset.mimeType),
      widgets: area ? area.node.querySelectorAll(".jupyter-widgets").length : 0,
      text: area ? area.node.innerText : "",
      pictures: [...widget.node.querySelectorAll("img")].map(this.picture),
      badMath: widget.node.querySelectorAll("mjx-merror, .MathJax_Error").length,
    };
  },

  look() {
    return {
      cells: this.panel()?.content.widgets.map((widget, index) => this.cell(widget, index)) ?? [],
      dialogs: this.texts(".jp-Dialog"),
      toasts: this.texts(".Toastify__toast"),
      hidden: this.log(),
      kernel: this.panel()?.sessionContext.kernelDisplayStatus ?? "no notebook on screen",
    };
  },
};
