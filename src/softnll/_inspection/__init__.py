"""What people look at: explanations, diagnoses, reports, displays, calibration, the page."""
