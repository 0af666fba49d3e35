"""What mmmamba changes in other OpenMMLab packages."""
