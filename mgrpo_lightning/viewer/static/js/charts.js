// Chart: a uPlot chart of curves over the steps of training, with a line for each run and role.
"use strict";

const COLOURS = ["#2f6fde", "#d9652b", "#2a9d6f", "#9b4fc4", "#c43b5a", "#7a7a1f", "#1f8a9a", "#8a5a2b"];
// A step is a whole number.
const WHOLE = [0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((one) => one * 10 ** power));

// Learning rates need their exponent, and few figures more digits than uPlot's three.
const tick = (value) => (value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(1) : String(+value.toPrecision(6)));

function Chart({ title, lines, theme }) {
  const place = useRef(null);
  useEffect(() => {
    const steps = [...new Set(lines.flatMap((one) => one.points.map(([step]) => step)))].sort((a, b) => a - b);
    const values = lines.map((one) => {
      const known = new Map(one.points);
      return steps.map((step) => known.get(step) ?? null);
    });
    const ink = getComputedStyle(document.body).getPropertyValue("--ink").trim();
    const grid = { stroke: getComputedStyle(document.body).getPropertyValue("--line").trim(), width: 1 };
    const plot = new uPlot({
      title, width: place.current.clientWidth, height: 210, scales: { x: { time: false } },
      series: [{ label: "step" }, ...lines.map((one, i) => ({
        label: one.name, stroke: COLOURS[i % COLOURS.length], width: 1.5, spanGaps: true,
        value: (_, value) => number(value, 3),
      }))],
      axes: [
        { stroke: ink, grid, ticks: grid, incrs: WHOLE },
        { stroke: ink, grid, ticks: grid, size: 56, values: (_, ticks) => ticks.map(tick) },
      ],
    }, [steps, ...values], place.current);
    const resized = new ResizeObserver(() => plot.setSize({ width: place.current.clientWidth, height: 210 }));
    resized.observe(place.current);
    return () => { resized.disconnect(); plot.destroy(); };
  }, [lines, theme]);
  return html`<div class="chart" ref=${place}></div>`;
}
