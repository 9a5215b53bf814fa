// The camera of pictures.py: the dashboard in headless Chromium, whole in the light, its top in the dark and on a phone.
import process from 'node:process';
import { chromium } from 'playwright-core';

const subject = JSON.parse(process.argv[2]);
const SHOTS = [
  { name: 'light', colorScheme: 'light', viewport: { width: 1280, height: 960 }, fullPage: true },
  { name: 'dark', colorScheme: 'dark', viewport: { width: 1280, height: 960 } },
  { name: 'phone', colorScheme: 'light', viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 1.5 },
];

const browser = await chromium.launch({
  executablePath: subject.chromium, timeout: 60_000,
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--disable-background-networking'],
});
for (const { name, fullPage = false, ...options } of SHOTS) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  await page.goto(`${subject.admin}/dashboard/`);
  await page.locator('#figures').waitFor();
  await page.locator('#top tbody tr').first().waitFor();
  await page.locator('#p-daily svg').waitFor();
  await page.locator('#range').selectOption('120');
  // Counts of the last minute need a minute of frames.
  await page.waitForTimeout(name === 'light' ? 62_000 : 4_000);
  await page.screenshot({ path: `${subject.to}/dashboard-${name}.png`, fullPage });
  await context.close();
}
await browser.close();
