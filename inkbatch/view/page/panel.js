// Controls: each one shows one value of the state and changes it.

const $ = (id) => document.getElementById(id);
const BOOST_TOP = 20;
export const boostOf = (place) => BOOST_TOP ** (2 * place - 1);
const placeOf = (boost) => (Math.log(boost) / Math.log(BOOST_TOP) + 1) / 2;
const CHECKS = ["papyrus", "map", "solid", "invert", "flip", "ink_labels", "ignore_mask"];
const CHOICES = ["combine", "blend", "compare"];

export class Panel {
  constructor(store, actions) {
    this.store = store;
    const set = (changes) => store.set(changes);
    for (const id of CHECKS) $(id).addEventListener("change", (event) => set({ [id]: event.target.checked }));
    for (const id of CHOICES) {
      $(id).addEventListener("click", (event) => event.target.value && set({ [id]: event.target.value }));
    }
    for (const id of ["colours", "second", "segment"]) $(id).addEventListener("change", (event) => set({ [id]: event.target.value }));
    for (const id of ["opacity", "threshold", "layer"]) $(id).addEventListener("input", (event) => set({ [id]: Number(event.target.value) }));
    $("depth").addEventListener("input", (event) => this.setDepth(Number(event.target.value)));
    $("boost").addEventListener("input", (event) => {
      const boost = boostOf(Number(event.target.value));
      set({ boost: Math.abs(boost - 1) < 0.06 ? 1 : Number(boost.toPrecision(2)) });
    });
    $("low").addEventListener("input", (event) => set({ low: Math.min(Number(event.target.value), store.state.high - 1) }));
    $("high").addEventListener("input", (event) => set({ high: Math.max(Number(event.target.value), store.state.low + 1) }));
    for (const [id, action] of Object.entries(actions)) $(id).addEventListener("click", action);
    $("drawer").addEventListener("click", () => {
      const open = $("panel").classList.toggle("open");
      $("drawer").setAttribute("aria-expanded", String(open));
    });
    store.listen((state) => this.show(state));
  }

  // The mean keeps its middle layer.
  setDepth(depth) {
    const { layer, depth: before } = this.store.state;
    const middle = layer + Math.floor((before - 1) / 2);
    const count = this.group.layers.length;
    const first = Math.max(0, Math.min(count - depth, middle - Math.floor((depth - 1) / 2)));
    this.store.set({ depth, layer: first });
  }

  // A segment was chosen: fill what depends on it.
  open(group, groups) {
    this.group = group;
    $("segment").replaceChildren(...groups.map((one) => new Option(one.segment, one.segment)));
    const mm = (pixels) => (pixels * group.voxel_size_um / 1000).toFixed(1);
    const facts = [`${group.width.toLocaleString("en")} × ${group.height.toLocaleString("en")} px`];
    if (group.voxel_size_um) facts.push(`${mm(group.width)} × ${mm(group.height)} mm`);
    facts.push(group.photograph ? "photograph" : `${group.layers.length || "no"} layers`);
    if (group.voxel_size_um) facts.push(`${group.voxel_size_um} µm`);
    $("facts").textContent = facts.join(" · ");
    $("papyrus-box").hidden = !group.layers.length && !group.photograph;
    $("papyrus-box").classList.toggle("plain", group.photograph);
    $("below-says").textContent = group.photograph ? "Photograph" : "Papyrus";
    $("map-box").hidden = !group.maps.length;
    $("compare-box").hidden = group.maps.length < 2;
    $("ink-labels-row").hidden = !group.overlays.includes("ink_labels");
    $("ignore-mask-row").hidden = !group.overlays.includes("ignore_mask");
    $("layer").max = group.layers.length - 1;
    $("depth").max = group.layers.length;
    const top = group.dtype === "uint16" ? 65535 : 255;
    $("low").max = $("high").max = top;
    $("maps").replaceChildren(...group.maps.map((map) => this.mapRow(map)));
    $("second").replaceChildren(...group.maps.map((map) => new Option(map.name, map.name)));
  }

  mapRow(map) {
    const label = document.createElement("label"), box = document.createElement("input"), text = document.createElement("span");
    box.type = "checkbox";
    box.value = map.name;
    box.addEventListener("change", () => {
      const chosen = [...$("maps").querySelectorAll("input:checked")].map((one) => one.value);
      if (chosen.length) this.store.set({ maps: chosen, map: true });
      else box.checked = true;
    });
    text.textContent = map.name;
    const small = document.createElement("small"), { tile_px: tile, stride_px: stride, job } = map.facts;
    small.textContent = map.complete ? (tile ? `tile ${tile}, stride ${stride}` : job ?? "") : `${map.done} of ${map.units} units so far`;
    small.classList.toggle("partial", !map.complete);
    if (small.textContent) text.append(small);
    label.append(box, text);
    return label;
  }

  show(state) {
    if (!this.group) return;
    for (const id of CHECKS) $(id).checked = state[id];
    for (const id of CHOICES) {
      for (const button of $(id).children) button.setAttribute("aria-pressed", String(button.value === state[id]));
    }
    for (const id of ["colours", "second", "segment", "opacity", "threshold", "layer", "depth", "low", "high"]) $(id).value = state[id];
    for (const box of $("maps").querySelectorAll("input")) box.checked = state.maps.includes(box.value);
    $("boost").value = placeOf(state.boost);
    const layers = this.group.layers;
    const last = Math.min(layers.length, state.layer + state.depth) - 1;
    $("layer-says").textContent = layers.length ? (state.depth > 1 ? `${layers[state.layer]} – ${layers[last]}` : String(layers[state.layer])) : "";
    $("layer").max = Math.max(0, layers.length - state.depth);
    $("depth-says").textContent = state.depth === 1 ? "1 layer" : `${state.depth} layers`;
    $("contrast-says").textContent = `${state.low} – ${state.high}`;
    $("opacity-says").textContent = `${Math.round(state.opacity * 100)} %`;
    $("boost-says").textContent = `× ${state.boost}`;
    $("threshold-says").textContent = state.threshold ? state.threshold.toFixed(2) : "off";
    $("combine-row").hidden = state.maps.length < 2;
    $("second-row").hidden = state.compare === "off";
    $("difference-hint").hidden = state.compare !== "difference";
    for (const id of ["colours", "solid", "invert"]) $(id).disabled = state.compare === "difference";
    $("mark").setAttribute("aria-pressed", String(Boolean(state.region)));
  }
}
