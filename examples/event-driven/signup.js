// Signup writes the user down and publishes that there is one. There is no moment in between.
const app = require('./app.js');

app.serve(async (user) => {
  if (!/^[a-z0-9-]{1,40}$/.test(user?.name) || typeof user.language !== 'string') {
    throw new app.Refusal(400, 'a user has a name and a language');
  }
  if (await app.get(`user/${user.name}`)) throw new app.Refusal(409, `${user.name} is taken`);
  await app.put(`user/${user.name}`, { language: user.language });
  await app.publish('signups', { name: user.name, language: user.language });
  return { welcome: user.name };
});
