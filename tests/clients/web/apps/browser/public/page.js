const form = document.querySelector('#upload');
form.addEventListener('submit', async (event) => {
  event.preventDefault();
  const response = await fetch('files', { method: 'POST', body: new FormData(form) });
  form.querySelector('output').textContent = JSON.stringify(await response.json());
});

const events = new EventSource('events');
events.addEventListener('tick', ({ data }) => {
  const item = document.createElement('li');
  item.textContent = JSON.parse(data).n;
  document.querySelector('#events').append(item);
  if (JSON.parse(data).n === 9) events.close();
});
