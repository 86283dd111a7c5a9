"use strict";
(async () => {
  const $ = id => document.getElementById(id);
  const section = $("viewer-section");
  const { volumes: looks, at } = JSON.parse(section.dataset.look);
  try {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser offers no WebGL 2");
    $("viewer-status").textContent = "Unpacking the volumes…";
    $("viewer-body").hidden = false;
    const nv = new niivue.Niivue({
      isRadiologicalConvention: true, sagittalNoseLeft: true, multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
      dragAndDropEnabled: false, crosshairWidth: 0.4, crosshairWidthUnit: "mm", crosshairColor: [0, 0.8, 0.4, 0.7],
      fontColor: [1, 1, 1, 1], logLevel: "error",
      onLocationChange: position => { $("viewer-position").textContent = position.string; },
    });
    await nv.attachToCanvas($("viewer-canvas"));
    // The colours of the pictures, from transparent at the least to opaque.
    const colours = (id, [R, G, B]) => {
      const steps = R.map((_, step) => Math.round(255 * step / (R.length - 1)));
      nv.addColormap(id, { R, G, B, A: steps, I: steps });
      return id;
    };
    const grey = () => ({ colormap: "gray" });
    const look = {
      input: grey,
      image: grey,
      mask: ({ id, colours: rgb }) => ({ colormap: colours(id, rgb) }),
      map: ({ id, colours: rgb }) => ({ colormap: colours(id, rgb) }),
      difference: ({ id, low, high, colours: rgb }) => ({
        colormap: colours(`${id}-taken`, rgb.map(([, none, taken]) => [none, taken])),
        colormapNegative: colours(`${id}-added`, rgb.map(([added, none]) => [none, added])),
        cal_minNeg: -low, cal_maxNeg: -high,
      }),
    };
    const shown = {};
    $("viewer-mark").textContent = "INPUT";
    for (const each of looks) {
      shown[each.id] = await niivue.NVImage.loadFromBase64({
        base64: $(`volume-${each.id}`).textContent, name: `${each.id}.nii.gz`, opacity: Number(each.kind === "input"),
        cal_min: each.low, cal_max: each.high, ...look[each.kind](each),
      });
      nv.addVolume(shown[each.id]);
    }
    const show = () => {
      const base = document.querySelector("[name=volume]:checked").value;
      const over = [...document.querySelectorAll("[name=over]:checked")].map(box => box.value);
      for (const { id, kind } of looks) {
        // A mask lets the scan through.
        if (kind !== "input") shown[id].opacity = id === base || over.includes(id) ? (kind === "mask" ? 0.4 : 1) : 0;
      }
      const titles = looks.filter(({ id }) => over.includes(id)).map(({ title }) => title);
      $("viewer-mark").textContent =
        base !== "input" ? "SYNTHETIC" : titles.length ? `INPUT with SYNTHETIC ${titles.join(", ")}` : "INPUT";
      nv.updateGLVolume();
    };
    nv.scene.crosshairPos = nv.mm2frac(at);
    section.addEventListener("change", show);
    show();
    $("viewer-status").hidden = true;
  } catch (error) {
    $("viewer-body").hidden = true;
    $("viewer-status").hidden = false;
    $("viewer-status").textContent =
      `The viewer cannot run here (${error.message}). All pictures above are there without it.`;
  }
})();
