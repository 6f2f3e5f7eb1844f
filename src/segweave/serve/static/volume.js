// The 3D and multi-planar view is NiiVue, which `make page` installs; without it the page says how.

import { blob, headers } from "./api.js";
import { by, make, message } from "./dom.js";
import { colourOf } from "./draw.js";

export function offerVolume(result) {
  if (!result.slices.view.is_volume) {
    by("volume-part").hidden = true;
    return;
  }
  if (!result.page.viewer) {
    by("volume").append(
      make("p", { className: "hint" },
        "The viewer NiiVue is not installed. Who runs the service gets it with ",
        make("code", {}, "make page"), " in the source folder of segweave (npm is needed), and " +
        "loads this page again."),
    );
    return;
  }
  const button = make("button", { type: "button" }, "Show in 3D");
  by("volume").append(button);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await show(result);
      button.remove();
    } catch (error) {
      button.disabled = false;
      by("volume").append(message(error.message, error.status));
    }
  });
}

async function show(result) {
  const { slices } = result;
  await import("/static/vendor/niivue.js"); // a plain script, which names itself
  const { Niivue, NVImage } = globalThis.niivue;
  const canvas = make("canvas", {
    className: "volume", tabIndex: 0, role: "img",
    "aria-label": "Three planes and a rendering of the image with its classes",
  });
  by("volume").append(make("div", { className: "volume-frame" }, canvas));
  const viewer = new Niivue({
    isResizeCanvas: true, show3Dcrosshair: true, backColor: [0, 0, 0, 1], logLevel: "error", crosshairWidth: 0.5,
    isOrientationTextVisible: Boolean(slices.view.edges), // without a direction its letters mean nothing
  });
  await viewer.attachToCanvas(canvas);
  viewer.setRadiologicalConvention(true); // the patient's left at the right, as in the slices
  const load = async (name, more) =>
    NVImage.loadFromUrl({
      url: new Uint8Array(await (await blob(`${slices.path}/volumes/${name}.nii.gz`)).arrayBuffer()).buffer,
      name: `${name}.nii.gz`,
      headers: headers(),
      ...more,
    });
  viewer.addVolume(await load("image", { colormap: "gray" }));
  const labels = await load("labels", { opacity: 0.6 });
  labels.setColormapLabel(colours(result));
  viewer.addVolume(labels);
  viewer.setSliceType(viewer.sliceTypeMultiplanar);
  viewer.setMultiplanarLayout(2);
  viewer.opts.multiplanarShowRender = 1;
  viewer.drawScene();
  canvas.dataset.loaded = "true";
}

// A table of colours by label id, 0 transparent.
function colours({ slices, looks }) {
  const first = slices.view.overlapping ? 1 : 0;
  const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ["background"] };
  for (const { id, name } of slices.view.classes) {
    const look = looks.get(name);
    const [r, g, b] = colourOf(look.colour);
    table.R.push(r);
    table.G.push(g);
    table.B.push(b);
    table.A.push(look.visible ? 255 : 0);
    table.I.push(id + first);
    table.labels.push(name);
  }
  return table;
}
