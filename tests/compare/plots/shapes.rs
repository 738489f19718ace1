//! Shapes.

use super::svg::{Anchor, Svg};

#[test]
fn a_picture_is_one_svg_element_with_a_title_and_a_background() {
    let expected = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"30\" height=\"20.5\" \
         viewBox=\"0 0 30 20.5\" font-family=\"sans-serif\" fill=\"#222222\" role=\"img\">\n\
         <title>nothing</title>\n\
         <rect x=\"0\" y=\"0\" width=\"30\" height=\"20.5\" fill=\"#ffffff\"/>\n</svg>\n";
    assert_eq!(Svg::new(30.0, 20.5).finish("nothing"), expected);
}

#[test]
fn text_cannot_become_markup() {
    let mut svg = Svg::new(1.0, 1.0);
    svg.text((0.0, 0.0), 12.0, Anchor::End, "a < b & c");
    let drawn = svg.finish("<x>");
    assert!(drawn.contains("text-anchor=\"end\">a &lt; b &amp; c</text>"));
    assert!(drawn.contains("<title>&lt;x&gt;</title>"));
}

#[test]
fn what_is_no_number_is_drawn_at_zero() {
    let mut svg = Svg::new(1.0, 1.0);
    svg.line((f64::NAN, 1.26), (f64::INFINITY, -0.01), "#000");
    let drawn = svg.finish("");
    assert!(drawn.contains("<line x1=\"0\" y1=\"1.3\" x2=\"0\" y2=\"0\" stroke=\"#000\"/>"));
}

#[test]
fn a_shape_has_no_negative_size() {
    let mut svg = Svg::new(1.0, 1.0);
    svg.rect((1.0, 1.0), (-5.0, 2.0), "red");
    assert!(
        svg.finish("")
            .contains("width=\"0\" height=\"2\" fill=\"red\"")
    );
}

#[test]
fn a_curve_names_its_points_in_order() {
    let mut svg = Svg::new(1.0, 1.0);
    svg.polyline(&[(0.0, 1.0), (2.5, 3.0)], "#f00");
    assert!(
        svg.finish("")
            .contains("points=\"0,1 2.5,3\" fill=\"none\"")
    );
}
