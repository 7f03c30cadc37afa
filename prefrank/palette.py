"""Colors of lines and marks in every picture: told apart by the color-blind too (after Okabe & Ito 2008)."""

COLORS = ("#0b3d66", "#d9730d", "#009e73", "#cc79a7", "#56b4e9", "#b3261e", "#8a8a8a", "#111111")
