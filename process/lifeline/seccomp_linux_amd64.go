package lifeline

const sysSeccomp = 317
