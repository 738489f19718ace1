//! Pictures.

#[path = "../../../benches/load/plots/charts.rs"]
mod charts;
mod drawing;
#[path = "../../../benches/load/plots/scale.rs"]
mod scale;
mod scales;
mod shapes;
#[path = "../../../benches/load/plots/svg.rs"]
mod svg;
