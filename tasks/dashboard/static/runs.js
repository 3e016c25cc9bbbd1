import { html, showPage } from "./lib.js";

showPage(() => html`<p>…</p>`);
