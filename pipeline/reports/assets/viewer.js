"use strict";
(async () => {
  const $ = id => document.getElementById(id);
  const section = $("viewer-section");
  const { low, high, least, full, at } = JSON.parse(section.dataset.look);
  try {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser offers no WebGL 2");
    $("viewer-status").textContent = "Unpacking the volumes…";
    $("viewer-body").hidden = false;
    const nv = new niivue.Niivue({
      isRadiologicalConvention: true, sagittalNoseLeft: true, multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
      dragAndDropEnabled: false, crosshairWidth: 0.4, crosshairWidthUnit: "mm", crosshairColor: [0, 0.8, 0.4, 0.7],
      fontColor: [1, 1, 1, 1], logLevel: "error",
      onLocationChange: place => { $("viewer-place").textContent = place.string; },
    });
    await nv.attachToCanvas($("viewer-canvas"));
    nv.addColormap("taken", { R: [0, 255], G: [0, 115], B: [0, 0], A: [0, 255], I: [0, 255] });
    nv.addColormap("added", { R: [0, 0], G: [0, 115], B: [0, 255], A: [0, 255], I: [0, 255] });
    const grey = { colormap: "gray", cal_min: low, cal_max: high };
    const volumes = {};
    $("viewer-mark").textContent = "INPUT";
    for (const [name, look] of [
      ["input", { ...grey, opacity: 1 }],
      ["twin", { ...grey, opacity: 0 }],
      ["anomaly", { colormap: "taken", colormapNegative: "added", opacity: 0, cal_min: least, cal_max: full,
        cal_minNeg: -least, cal_maxNeg: -full }],
    ]) {
      volumes[name] = await niivue.NVImage.loadFromBase64(
        { base64: $(`volume-${name}`).textContent, name: `${name}.nii.gz`, ...look });
      nv.addVolume(volumes[name]);
    }
    const show = () => {
      const twin = document.querySelector("[name=volume]:checked").value === "twin";
      const anomaly = $("viewer-anomaly").checked;
      volumes.twin.opacity = Number(twin);
      volumes.anomaly.opacity = Number(anomaly);
      $("viewer-mark").textContent = twin ? "SYNTHETIC" : anomaly ? "INPUT with SYNTHETIC difference" : "INPUT";
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
