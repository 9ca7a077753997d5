// Express's hello world, with its built-in middleware: static files, forms, JSON; and multer, which its pages name for uploads.
const express = require('express');
const multer = require('multer');
const crypto = require('node:crypto');

const app = express();
const port = process.env.PORT || 3000;

app.set('trust proxy', true);
app.use('/static', express.static('public'));
app.use(express.urlencoded({ extended: true }));
app.use(express.json());

app.get('/', (req, res) => {
  res.send('Hello World!');
});

app.post('/form', (req, res) => {
  res.cookie('seen', 'yes', { httpOnly: true });
  res.redirect(303, `thanks?name=${encodeURIComponent(req.body.user.name)}`);
});

app.get('/thanks', (req, res) => {
  res.json({ name: req.query.name, cookie: req.headers.cookie, ip: req.ip, protocol: req.protocol, host: req.host });
});

app.post('/profile', multer({ storage: multer.memoryStorage() }).single('avatar'), (req, res) => {
  res.json({ name: req.file.originalname, sha256: crypto.createHash('sha256').update(req.file.buffer).digest('hex'), fields: req.body });
});

app.post('/json', (req, res) => res.json(req.body));

app.get('/fail', () => {
  throw new Error('BROKEN');
});

app.listen(port, () => {
  console.log(`Example app listening on port ${port}`);
});
