"""The paper's rivals that are detectors of their own (Table 1), and nearest neighbours as bars."""
