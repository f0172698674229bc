// What there is, and what it costs in cents.
module.exports = { alpaca: 4900, hat: 1900, quipu: 129000, tea: 450 };
