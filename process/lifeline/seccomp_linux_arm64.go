package lifeline

const sysSeccomp = 277
