// Welcome writes one letter for each user. It throws where it cannot: the platform tries again, and keeps what never works
// as a dead letter. Nobody else waits for that one.
const app = require('./app.js');
const letters = require('./letters.json');

app.serve(async (event) => {
  const { name, language } = event.data;
  const letter = letters[language];
  if (!letter) throw new Error(`no letter in language ${language}`);
  await app.publish('letters', { to: name, text: letter.replace('NAME', name) });
  return { to: name };
});
